"""Blocks on (fake) GPUs between instances of different tensor parallelism: heads are gathered and scattered there."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import numpy as np
import pytest

from cluster.links import nccl_channel, nccl_messages, part_checksums
from cluster.links.config import LinkConfig
from cluster.links.kv_region import checksum
from cluster.links.record_shape import HeadRange, RecordShape

from .factories import EPOCH, SOURCE_BLOCKS, TARGET_BLOCKS
from .fake_nccl import World, make_world
from .nccl_nodes import GpuNode

pytestmark = pytest.mark.unit

NUM_KV_HEADS, NUM_ROWS, NUM_BLOCKS = 4, 6, 16
PAIRS = list(itertools.product((1, 2, 4), repeat=2))


class Ranks:
    """All ranks of an instance, each with a GPU of its own."""

    def __init__(
        self, stack: ExitStack, world: World, name: str, num_ranks: int, config: LinkConfig, head_bytes: int
    ) -> None:
        shape = RecordShape(num_rows=NUM_ROWS, num_heads=NUM_KV_HEADS // num_ranks, head_bytes=head_bytes)
        self.nodes = [
            GpuNode(world, name, config, record_bytes=shape.record_bytes, shape=shape, rank=rank, num_ranks=num_ranks)
            for rank in range(num_ranks)
        ]
        for node in self.nodes:
            stack.enter_context(closing(node))

    def whole(self, block_ids: tuple[int, ...]) -> np.ndarray:
        """[number of blocks, rows, bytes of all heads]"""
        shards = [node.records[list(block_ids)].reshape(len(block_ids), NUM_ROWS, -1) for node in self.nodes]
        return np.concatenate(shards, axis=2)

    def send(self, target: "Ranks", block_ids: tuple[int, ...]) -> None:
        address = ",".join(node.listener.address for node in target.nodes)
        for node in self.nodes:
            node.links.send(address, target.nodes[0].holder, node.transfer(block_ids))


MakeRanks = Callable[..., Ranks]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """With little memory beside KV, which takes long to make."""
    stage(monkeypatch, 64 << 10)
    monkeypatch.setattr(part_checksums, "SCRATCH_BYTES", 1 << 10)
    with make_world() as world:
        yield world


def stage(monkeypatch: pytest.MonkeyPatch, num_bytes: int) -> None:
    for module in (nccl_messages, nccl_channel):
        monkeypatch.setattr(module, "STAGING_BYTES", num_bytes)


@pytest.fixture
def make_ranks(world: World) -> Iterator[MakeRanks]:
    with ExitStack() as stack:

        def make(name: str, num_ranks: int, *, head_bytes: int = 48, **config: bool) -> Ranks:
            return Ranks(stack, world, name, num_ranks, LinkConfig(**config), head_bytes)

        yield make


def open_slots(source: Ranks, target: Ranks, block_ids: tuple[int, ...] = TARGET_BLOCKS) -> None:
    for node in target.nodes:
        node.slots.open(1, source.nodes[0].holder, EPOCH, block_ids, 0)


def move(source: Ranks, target: Ranks, block_ids: tuple[int, ...], target_ids: tuple[int, ...]) -> None:
    open_slots(source, target, target_ids)
    source.send(target, block_ids)
    for node in source.nodes:
        node.events.next("on_sent")
    np.testing.assert_array_equal(target.whole(target_ids), source.whole(block_ids))


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize(("source_size", "target_size"), PAIRS)
def test_every_rank_gets_its_heads_of_every_block(make_ranks, source_size, target_size, checksum):
    source, target = (
        make_ranks(name, size, checksum=checksum) for name, size in (("p", source_size), ("d", target_size))
    )
    others = tuple(block_id for block_id in range(NUM_BLOCKS) if block_id not in TARGET_BLOCKS)
    before = target.whole(others)
    move(source, target, SOURCE_BLOCKS, TARGET_BLOCKS)
    np.testing.assert_array_equal(target.whole(others), before)
    for node in target.nodes:
        checksums = node.region.checksums(TARGET_BLOCKS) if checksum else ()
        assert node.events.next("on_arrived") == (1, 0, len(TARGET_BLOCKS), checksums)
        assert node.events.is_silent
        assert node.slots.close(1)


@pytest.mark.parametrize(("source_size", "target_size"), [(1, 4), (2, 1)])
@pytest.mark.parametrize("head_bytes", [48, 40], ids=["in units of 16 bytes", "byte by byte"])
def test_runs_in_one_piece_are_gathered_too(make_ranks, source_size, target_size, head_bytes):
    source, target = (
        make_ranks("p", source_size, head_bytes=head_bytes),
        make_ranks("d", target_size, head_bytes=head_bytes),
    )
    move(source, target, tuple(range(2, 9)), tuple(range(7, 14)))


@pytest.mark.parametrize(("source_size", "target_size"), [(1, 2), (4, 1), (2, 4)])
@pytest.mark.parametrize("num_staged_rows", [1, 4, 3 * NUM_ROWS])
def test_parts_take_turns_in_staging_even_those_that_do_not_fit(
    make_ranks, monkeypatch, source_size, target_size, num_staged_rows
):
    staging_bytes = num_staged_rows * 48 * NUM_KV_HEADS // max(source_size, target_size)
    stage(monkeypatch, staging_bytes)
    source, target = make_ranks("p", source_size), make_ranks("d", target_size)
    move(source, target, (*range(7), 9, 15, 13), (*range(5, 12), 14, 1, 3))


@pytest.mark.parametrize(("source_size", "target_size"), [(1, 2), (2, 1)])
def test_a_part_that_comes_damaged_is_not_used(world, make_ranks, monkeypatch, source_size, target_size):
    source, target = make_ranks("p", source_size), make_ranks("d", target_size)
    open_slots(source, target)
    deliver = world.deliver

    def damage(sent, received):
        deliver(sent, received)
        world.view(received.pointer, received.num_bytes)[7] ^= 0x40

    monkeypatch.setattr(world, "deliver", damage)
    source.send(target, SOURCE_BLOCKS)
    for node in source.nodes:
        assert "wrong checksum of block 0" in node.events.next("on_send_failed")[1]
    for node in target.nodes:
        told = [node.events.next("on_damaged"), node.events.next("on_bad")][-1]
        assert "wrong checksum of block 0" in told[1]


def test_a_block_damaged_since_it_was_sealed_is_not_sent(make_ranks):
    source, target = make_ranks("p", 1), make_ranks("d", 2)
    open_slots(source, target)
    (node,) = source.nodes
    transfer = node.transfer(SOURCE_BLOCKS)
    node.records[SOURCE_BLOCKS[0]][0] ^= 0xFF
    node.links.send(",".join(each.listener.address for each in target.nodes), target.nodes[0].holder, transfer)
    assert "damaged in the source's memory" in node.events.next("on_send_failed")[1]


def test_checksums_of_parts_are_those_of_what_is_gathered(make_ranks):
    (node,) = make_ranks("p", 1).nodes
    heads, shape = HeadRange(start=1, count=2), node.region.shape
    right = tuple(
        checksum(np.ascontiguousarray(shape.rows(node.records[block_id], heads)).reshape(-1))
        for block_id in SOURCE_BLOCKS
    )
    assert node.region.part_checksums(SOURCE_BLOCKS, shape.strided(heads)) == right
