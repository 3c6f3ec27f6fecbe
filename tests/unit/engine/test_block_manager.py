import pytest

from cluster.engine.block_hash import hash_blocks
from cluster.engine.block_manager import BlockManager
from cluster.engine.sequence import Sequence
from tests.unit.engine.factories import BLOCK_SIZE, make_sequence

pytestmark = pytest.mark.unit


def compute(blocks: BlockManager, sequence: Sequence) -> range:
    """All of its tokens, from admission to sealing."""
    num_tokens = sequence.num_tokens
    assert blocks.admit(sequence, num_tokens, max_cached_tokens=num_tokens - 1)
    sequence.num_computed_tokens = num_tokens
    return blocks.seal(sequence)


def cached(blocks: BlockManager, prompt: list[int]) -> list[int]:
    return blocks.find_cached(hash_blocks(prompt, BLOCK_SIZE))


def test_a_pool_needs_blocks_of_some_size() -> None:
    with pytest.raises(ValueError, match="num_blocks 0"):
        BlockManager(0, 4)
    with pytest.raises(ValueError, match="block_size 0"):
        BlockManager(4, 0)


def test_a_table_grows_only_when_a_block_is_full() -> None:
    blocks, sequence = BlockManager(4, BLOCK_SIZE), make_sequence()
    for num_tokens, num_blocks in ((1, 1), (4, 1), (5, 2), (8, 2), (9, 3)):
        assert blocks.allocate(sequence, num_tokens)
        assert len(sequence.block_table) == num_blocks
    assert blocks.num_free_blocks == 1


def test_what_cannot_be_allocated_now_changes_nothing() -> None:
    blocks, sequence = BlockManager(2, BLOCK_SIZE), make_sequence()
    assert blocks.allocate(sequence, 4)
    assert not blocks.allocate(sequence, 12)
    assert len(sequence.block_table) == 1
    assert blocks.num_free_blocks == 1


def test_admission_leaves_the_spare_blocks_alone() -> None:
    blocks, sequence = BlockManager(4, BLOCK_SIZE), make_sequence()
    assert not blocks.admit(sequence, 12, max_cached_tokens=0, num_spare_blocks=2)
    assert sequence.block_table == []
    assert blocks.admit(sequence, 12, max_cached_tokens=0, num_spare_blocks=1)


def test_sealing_names_the_full_and_computed_blocks_once() -> None:
    blocks, sequence = BlockManager(4, BLOCK_SIZE), make_sequence(prompt=range(10))
    assert compute(blocks, sequence) == range(2)
    assert list(blocks.seal(sequence)) == []
    assert sequence.block_hashes == hash_blocks(range(10), BLOCK_SIZE)
    assert cached(blocks, list(range(10))) == sequence.block_table[:2]
    blocks.check_integrity([sequence])


def test_blocks_that_are_not_computed_are_found_by_nobody() -> None:
    blocks, sequence = BlockManager(4, BLOCK_SIZE), make_sequence(prompt=range(8))
    assert blocks.admit(sequence, 8, max_cached_tokens=7)
    sequence.num_computed_tokens = 4
    assert blocks.seal(sequence) == range(1)
    assert cached(blocks, list(range(8))) == sequence.block_table[:1]


def test_a_common_prefix_is_held_once_and_counted_twice() -> None:
    blocks = BlockManager(8, BLOCK_SIZE)
    first, second = make_sequence("first", range(9)), make_sequence("second", [*range(8), 77])
    compute(blocks, first)
    compute(blocks, second)
    assert second.block_table[:2] == first.block_table[:2]
    assert second.block_table[2] != first.block_table[2]
    blocks.free(first)
    blocks.check_integrity([second])
    assert blocks.num_free_blocks == 8 - 3


def test_a_prompt_is_never_found_as_a_whole() -> None:
    blocks = BlockManager(8, BLOCK_SIZE)
    compute(blocks, make_sequence("first", range(8)))
    second = make_sequence("second", range(8))
    assert blocks.admit(second, 8, max_cached_tokens=7)
    assert second.num_computed_tokens == BLOCK_SIZE


def test_freed_blocks_can_be_found_until_they_are_evicted() -> None:
    blocks, sequence = BlockManager(2, BLOCK_SIZE), make_sequence(prompt=range(8))
    compute(blocks, sequence)
    blocks.free(sequence)
    assert blocks.num_free_blocks == 2
    assert len(cached(blocks, list(range(8)))) == 2
    assert blocks.allocate(make_sequence("other"), 8)
    assert cached(blocks, list(range(8))) == []


def test_the_least_recently_used_goes_first_and_the_end_of_a_chain_before_its_start() -> None:
    blocks = BlockManager(4, BLOCK_SIZE)
    old, new = make_sequence("old", range(8)), make_sequence("new", range(100, 108))
    for sequence in (old, new, old):  # used again: now `new` is the older one
        compute(blocks, sequence)
        blocks.free(sequence)
    taker = make_sequence("taker")
    assert blocks.allocate(taker, BLOCK_SIZE)
    assert len(cached(blocks, list(range(100, 108)))) == 1
    assert blocks.allocate(taker, 2 * BLOCK_SIZE)
    assert cached(blocks, list(range(100, 108))) == []
    assert len(cached(blocks, list(range(8)))) == 2
    blocks.check_integrity([taker])


def test_what_is_referenced_is_never_evicted() -> None:
    blocks, holder, other = BlockManager(2, BLOCK_SIZE), make_sequence(prompt=range(8)), make_sequence("other")
    compute(blocks, holder)
    assert not blocks.allocate(other, 1)
    assert len(cached(blocks, list(range(8)))) == 2


def test_a_hit_takes_from_what_is_free() -> None:
    """A cached block that nobody references counts as free: one that is found must not be promised twice."""
    blocks, sequence = BlockManager(2, BLOCK_SIZE), make_sequence(prompt=range(8))
    compute(blocks, sequence)
    blocks.free(sequence)
    longer = make_sequence("longer", range(12))
    assert not blocks.admit(longer, 12, max_cached_tokens=11)
    blocks.check_integrity([longer])


def test_of_two_that_compute_the_same_block_the_first_keeps_the_name() -> None:
    blocks = BlockManager(4, BLOCK_SIZE)
    first, second = make_sequence("first", range(8)), make_sequence("second", range(8))
    for sequence in (first, second):
        assert blocks.admit(sequence, 8, max_cached_tokens=7)
    for sequence in (first, second):
        sequence.num_computed_tokens = 8
        assert blocks.seal(sequence) == range(2)
    assert cached(blocks, list(range(8))) == first.block_table
    assert not set(first.block_table) & set(second.block_table)
    blocks.free(second)
    blocks.check_integrity([first])
    blocks.free(first)
    assert len(cached(blocks, list(range(8)))) == 2
    assert blocks.num_free_blocks == 4


def test_without_prefix_caching_blocks_are_sealed_but_never_found() -> None:
    blocks, sequence = BlockManager(4, BLOCK_SIZE, enable_prefix_caching=False), make_sequence(prompt=range(8))
    assert compute(blocks, sequence) == range(2)
    assert len(sequence.block_hashes) == 2
    assert cached(blocks, list(range(8))) == []


def test_a_pinned_block_outlives_its_sequence_and_is_no_leak() -> None:
    blocks, sequence = BlockManager(2, BLOCK_SIZE), make_sequence(prompt=range(6))
    compute(blocks, sequence)
    pinned = list(sequence.block_table)
    blocks.pin(pinned)
    blocks.free(sequence)
    blocks.check_integrity([])
    assert blocks.num_free_blocks == blocks.num_leaked_blocks([]) == 0
    blocks.unpin(pinned)
    blocks.check_integrity([])
    assert blocks.num_free_blocks == 2


def test_a_block_in_no_table_is_a_leak() -> None:
    blocks, sequence = BlockManager(2, BLOCK_SIZE), make_sequence()
    assert blocks.allocate(sequence, 6)
    assert blocks.num_leaked_blocks([sequence]) == 0
    assert blocks.num_leaked_blocks([]) == 2
    with pytest.raises(AssertionError, match="leaked"):
        blocks.check_integrity([])
