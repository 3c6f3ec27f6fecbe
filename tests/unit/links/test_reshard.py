import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.links.record_shape import HeadRange, RecordShape, gather, scatter
from cluster.links.reshard import piece, pieces

pytestmark = pytest.mark.unit

NUM_LAYERS, BLOCK_SIZE, HEAD_DIM = 3, 4, 6
NUM_BLOCKS = 5
PAIRS = list(itertools.product((1, 2, 4), repeat=2))


def shards(whole, num_ranks):
    """Plain reference: blocks [NUM_BLOCKS, 2, layers, slots, heads, dim], cut by heads for each rank."""
    return [np.ascontiguousarray(part) for part in np.split(whole, num_ranks, axis=4)]


def records(shard):
    return list(shard.view(np.uint8).reshape(NUM_BLOCKS, -1))


def shape_of(shard):
    _, two, layers, slots, heads, dim = shard.shape
    return RecordShape(num_rows=two * layers * slots, num_heads=heads, head_bytes=dim * shard.itemsize)


@pytest.mark.parametrize("num_kv_heads", [4, 8])
@pytest.mark.parametrize(("source_size", "target_size"), PAIRS)
def test_every_rank_gets_its_heads(source_size, target_size, num_kv_heads):
    shape = (NUM_BLOCKS, 2, NUM_LAYERS, BLOCK_SIZE, num_kv_heads, HEAD_DIM)
    whole = np.random.default_rng(0).standard_normal(shape, np.float32)
    sources, expected = shards(whole, source_size), shards(whole, target_size)
    targets = [np.zeros_like(shard) for shard in expected]
    for each in pieces(num_kv_heads, source_size, target_size):
        source, target = sources[each.source_rank], targets[each.target_rank]
        moved = gather(shape_of(source), records(source), each.source)
        assert all(part.flags.c_contiguous for part in moved)
        for record, part in zip(records(target), moved, strict=True):
            scatter(shape_of(target), record, each.target, part)
    for target, shard in zip(targets, expected, strict=True):
        np.testing.assert_array_equal(target, shard)


@given(
    st.sampled_from([(heads, a, b) for heads in (4, 6, 12) for a in (1, 2, 3, 4) for b in (1, 2, 3, 4)]).filter(
        lambda case: case[0] % case[1] == 0 == case[0] % case[2]
    )
)
def test_each_head_moves_once(case):
    num_kv_heads, source_size, target_size = case
    per_source, per_target = num_kv_heads // source_size, num_kv_heads // target_size
    moved = []
    for each in pieces(num_kv_heads, source_size, target_size):
        heads = range(each.source.count)
        sent = [each.source_rank * per_source + each.source.start + head for head in heads]
        taken = [each.target_rank * per_target + each.target.start + head for head in heads]
        assert sent == taken
        assert each.source.start + each.source.count <= per_source
        assert each.target.start + each.target.count <= per_target
        moved += sent
    assert moved == list(range(num_kv_heads))


def test_between_equal_layouts_each_rank_sends_its_whole_records_to_its_like():
    for each in pieces(8, 4, 4):
        assert each.source_rank == each.target_rank
        assert each.source == each.target == HeadRange(start=0, count=2)
    memory = [np.zeros(2 * 3 * 2 * 8, np.uint8)]
    whole = gather(RecordShape(num_rows=6, num_heads=2, head_bytes=8), memory, HeadRange(start=0, count=2))
    assert whole[0] is memory[0]


def test_ranks_that_share_no_head_have_nothing_to_move():
    assert piece(4, (0, 2), (3, 4)) is None
    found, index, num_parts = piece(4, (1, 2), (3, 4)) or pytest.fail("they share head 3")
    assert (found.source, found.target) == (HeadRange(start=1, count=1), HeadRange(start=0, count=1))
    assert (index, num_parts) == (0, 1)


def test_a_rank_that_several_send_to_tells_their_parts_apart():
    found, index, num_parts = piece(8, (3, 4), (1, 2)) or pytest.fail("they share heads 6 and 7")
    assert (found.source, found.target) == (HeadRange(start=0, count=2), HeadRange(start=2, count=2))
    assert (index, num_parts) == (1, 2)


def test_ranks_that_cannot_share_the_heads_are_refused():
    with pytest.raises(ValueError, match="3 ranks cannot share 4 KV heads"):
        pieces(4, 1, 3)
