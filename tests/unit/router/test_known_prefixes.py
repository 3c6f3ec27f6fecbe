"""What is believed to be in the instances' prefix caches: chains of blocks, the latest, and never more than fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.engine.block_hash import hash_blocks
from cluster.messages import Holder
from router.known_prefixes import KnownPrefixes

pytestmark = pytest.mark.unit

A, B = Holder("a", 1), Holder("b", 1)


def chain(*token_ids: int) -> list[bytes]:
    """With one token a block."""
    return hash_blocks(token_ids, 1)


def make_known(num_blocks: int = 4) -> KnownPrefixes:
    known = KnownPrefixes()
    known.join(A, num_blocks)
    known.join(B, num_blocks)
    return known


def test_a_prompt_is_known_where_it_was_as_far_as_it_is_the_same() -> None:
    known = make_known()
    known.add(A, chain(1, 2, 3))
    assert known.num_blocks(A, chain(1, 2, 3, 4)) == 3
    assert known.num_blocks(A, chain(1, 2, 9)) == 2
    assert known.num_blocks(A, chain(2, 3)) == 0
    assert known.num_blocks(B, chain(1, 2, 3)) == 0


def test_what_was_used_longest_ago_goes_first_and_ends_before_beginnings() -> None:
    known = make_known(num_blocks=4)
    known.add(A, chain(1, 2, 3))
    known.add(A, chain(7, 8))
    assert known.num_blocks(A, chain(1, 2, 3)) == 2
    known.add(A, chain(1))
    known.add(A, chain(5, 6))
    assert [known.num_blocks(A, chain(*tokens)) for tokens in ((1, 2), (7, 8), (5, 6))] == [1, 1, 2]


def test_a_chain_longer_than_the_memory_is_known_by_its_beginning() -> None:
    known = make_known(num_blocks=2)
    known.add(A, chain(1, 2, 3, 4))
    assert known.num_blocks(A, chain(1, 2, 3, 4)) == 2


def test_an_instance_that_leaves_or_keeps_nothing_or_is_strange_has_nothing() -> None:
    known = make_known()
    known.add(A, chain(1))
    known.leave(A)
    known.join(A, 0)
    for holder in (A, Holder("a", 2)):
        known.add(holder, chain(1))
        assert known.num_blocks(holder, chain(1)) == 0


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), max_size=20))
def test_no_block_is_believed_without_those_before_it(prompts: list[list[int]]) -> None:
    known = make_known(num_blocks=6)
    for prompt in prompts:
        known.add(A, chain(*prompt))
        known.check_integrity()
        assert known.num_blocks(A, chain(*prompt)) == len(prompt)
    for prompt in prompts:
        hashes = chain(*prompt)
        believed = [known.num_blocks(A, hashes[:end]) == end for end in range(1, len(hashes) + 1)]
        assert believed == sorted(believed, reverse=True)
