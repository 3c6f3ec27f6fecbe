"""Blocks between instances of different tensor parallelism: each rank sends what the other side's ranks need."""

import itertools
from contextlib import ExitStack, closing

import numpy as np
import pytest

from cluster import failpoints
from cluster.links.config import LinkConfig
from cluster.links.record_part import RecordPart
from cluster.links.record_shape import RecordShape

from .factories import EPOCH, SOURCE_BLOCKS, TARGET_BLOCKS, Node

pytestmark = pytest.mark.unit

NUM_KV_HEADS, NUM_ROWS, HEAD_BYTES, NUM_BLOCKS = 4, 6, 40, 16
UNEQUAL = [pair for pair in itertools.product((1, 2, 4), repeat=2) if pair[0] != pair[1]]


class Ranks:
    """All ranks of an instance, each with its own memory, in this one process."""

    def __init__(self, stack: ExitStack, name: str, num_ranks: int, config: LinkConfig) -> None:
        num_heads = NUM_KV_HEADS // num_ranks
        shape = RecordShape(num_rows=NUM_ROWS, num_heads=num_heads, head_bytes=HEAD_BYTES)
        self.nodes = [
            Node(name, 1, NUM_BLOCKS, shape.record_bytes, config, shape=shape, rank=rank, num_ranks=num_ranks)
            for rank in range(num_ranks)
        ]
        for node in self.nodes:
            stack.enter_context(closing(node))

    def whole(self, block_ids):
        """[number of blocks, rows, bytes of all heads]"""
        shards = [node.region.records[list(block_ids)].reshape(len(block_ids), NUM_ROWS, -1) for node in self.nodes]
        return np.concatenate(shards, axis=2)

    @property
    def link_address(self) -> str:
        return ",".join(node.listener.address for node in self.nodes)

    def send(self, target: "Ranks", block_ids) -> None:
        for node in self.nodes:
            node.links.send(target.link_address, target.nodes[0].holder, node.transfer(tuple(block_ids)))


@pytest.fixture
def make_ranks():
    with ExitStack() as stack:
        yield lambda name, num_ranks, **config: Ranks(stack, name, num_ranks, LinkConfig(**config))


def open_slots(source: Ranks, target: Ranks) -> None:
    for node in target.nodes:
        node.slots.open(1, source.nodes[0].holder, EPOCH, TARGET_BLOCKS, 0)


@pytest.mark.parametrize("transport", ["shm", "tcp"])
@pytest.mark.parametrize(("source_size", "target_size"), UNEQUAL)
def test_every_rank_gets_its_heads_of_every_block(make_ranks, source_size, target_size, transport):
    source, target = make_ranks("prefill-0", source_size, transport=transport), make_ranks("decode-0", target_size)
    open_slots(source, target)
    source.send(target, SOURCE_BLOCKS)
    for node in source.nodes:
        node.events.next("on_sent")
    np.testing.assert_array_equal(target.whole(TARGET_BLOCKS), source.whole(SOURCE_BLOCKS))
    for node in target.nodes:
        assert node.events.next("on_arrived") == (1, 0, len(TARGET_BLOCKS), node.region.checksums(TARGET_BLOCKS))
        assert node.events.is_silent
        assert node.slots.close(1)


@pytest.mark.parametrize("transport", ["shm", "tcp"])
@pytest.mark.parametrize(("source_size", "target_size"), [(1, 2), (2, 1)])
def test_a_part_that_comes_damaged_is_not_used(make_ranks, source_size, target_size, transport):
    source, target = make_ranks("prefill-0", source_size, transport=transport), make_ranks("decode-0", target_size)
    open_slots(source, target)
    before = target.whole(TARGET_BLOCKS)
    with failpoints.armed("links.receive.record", failpoints.flip):
        source.send(target, SOURCE_BLOCKS[:1])
        for node in source.nodes:
            assert "wrong checksum of block 0" in node.events.next("on_send_failed")[1]
    for node in target.nodes:
        assert node.slots.close(1)
    if target_size == 1:
        np.testing.assert_array_equal(target.whole(TARGET_BLOCKS), before)


def test_nothing_is_gathered_for_a_receiver_that_reads_the_memory_itself(make_ranks, monkeypatch):
    options = {"transport": "shm", "checksum": False}
    source, target = make_ranks("prefill-0", 1, **options), make_ranks("decode-0", 2, **options)
    open_slots(source, target)
    gathered = []
    monkeypatch.setattr(RecordPart, "gather", lambda part, records: gathered.append(records))
    source.send(target, SOURCE_BLOCKS)
    source.nodes[0].events.next("on_sent")
    np.testing.assert_array_equal(target.whole(TARGET_BLOCKS), source.whole(SOURCE_BLOCKS))
    assert not gathered


def test_a_block_damaged_since_it_was_sealed_is_not_sent(make_ranks):
    source, target = make_ranks("prefill-0", 1), make_ranks("decode-0", 2)
    open_slots(source, target)
    (node,) = source.nodes
    transfer = node.transfer(SOURCE_BLOCKS)
    node.region.records[SOURCE_BLOCKS[0]][0] ^= 0xFF
    node.links.send(target.link_address, target.nodes[0].holder, transfer)
    assert "damaged in the source's memory" in node.events.next("on_send_failed")[1]


def test_a_transfer_ends_when_all_its_pieces_have(make_ranks):
    source, target = make_ranks("prefill-0", 1), make_ranks("decode-0", 2)
    open_slots(source, target)
    target.nodes[1].listener.close()
    source.send(target, SOURCE_BLOCKS)
    assert "Connection refused" in source.nodes[0].events.next("on_send_failed")[1]
    assert source.nodes[0].events.is_silent
    assert target.nodes[0].events.next("on_arrived")[:3] == (1, 0, len(TARGET_BLOCKS))


def test_ranks_that_cannot_share_the_heads_get_nothing(make_ranks):
    source, target = make_ranks("prefill-0", 2), make_ranks("decode-0", 1)
    source.nodes[0].links.send(
        ",".join([target.link_address] * 3), target.nodes[0].holder, source.nodes[0].transfer(SOURCE_BLOCKS)
    )
    assert "do not share the KV heads" in source.nodes[0].events.next("on_send_failed")[1]
