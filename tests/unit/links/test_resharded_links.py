"""Blocks between instances of different tensor parallelism: each rank sends what the other side's ranks need."""

import itertools
from contextlib import ExitStack, closing

import numpy as np
import pytest

from cluster import failpoints
from cluster.links.config import LinkConfig
from cluster.links.record_shape import RecordShape
from cluster.links.reshard import pieces

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

    def send(self, target: "Ranks", block_ids) -> list[Node]:
        """Every piece; the nodes that sent them."""
        every = pieces(NUM_KV_HEADS, len(self.nodes), len(target.nodes))
        for piece in every:
            source, receiver = self.nodes[piece.source_rank], target.nodes[piece.target_rank]
            source.links.send(
                receiver.listener.address,
                receiver.holder,
                source.transfer(tuple(block_ids)),
                receiver_rank=piece.target_rank,
                receiver_num_ranks=len(target.nodes),
            )
        return [self.nodes[piece.source_rank] for piece in every]


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
    for node in source.send(target, SOURCE_BLOCKS):
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
        for node in source.send(target, SOURCE_BLOCKS[:1]):
            assert "wrong checksum of block 0" in node.events.next("on_send_failed")[1]
    for node in target.nodes:
        assert node.slots.close(1)
    if target_size == 1:
        np.testing.assert_array_equal(target.whole(TARGET_BLOCKS), before)


def test_a_block_damaged_since_it_was_sealed_is_not_sent(make_ranks):
    source, target = make_ranks("prefill-0", 1), make_ranks("decode-0", 2)
    open_slots(source, target)
    (node,) = source.nodes
    transfer = node.transfer(SOURCE_BLOCKS)
    node.region.records[SOURCE_BLOCKS[0]][0] ^= 0xFF
    receiver = target.nodes[1]
    ranks = {"receiver_rank": 1, "receiver_num_ranks": 2}
    node.links.send(receiver.listener.address, receiver.holder, transfer, **ranks)
    assert "damaged in the source's memory" in node.events.next("on_send_failed")[1]


def test_ranks_that_share_no_head_have_no_link(make_ranks):
    source, target = make_ranks("prefill-0", 2), make_ranks("decode-0", 4)
    node, receiver = source.nodes[0], target.nodes[3]
    transfer = node.transfer(SOURCE_BLOCKS)
    ranks = {"receiver_rank": 3, "receiver_num_ranks": 4}
    node.links.send(receiver.listener.address, receiver.holder, transfer, **ranks)
    assert "rank 0 of 2 and rank 3 of 4 share no KV head" in node.events.next("on_send_failed")[1]
