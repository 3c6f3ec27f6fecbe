"""What is moved live leaves piece by piece, two on each link, within a budget and a rate."""

from dataclasses import replace

import pytest

from cluster.instance.pacer import PIECE_S, Pacer, Piece
from cluster.messages import Epoch, Holder

pytestmark = pytest.mark.unit

A, B = Holder("a", 1), Holder("b", 1)
EPOCH = Epoch(1, 2)


def piece(request_id: str, first_block: int, receiver: Holder = A, num_bytes: int = 10) -> Piece:
    return Piece(
        request_id=request_id,
        epoch=EPOCH,
        receiver=receiver,
        reservation=1,
        first_block=first_block,
        num_blocks=1,
        num_bytes=num_bytes,
    )


def end(pacer: Pacer, *pieces: Piece) -> None:
    for it in pieces:
        pacer.ended(it.request_id, it.epoch, it.first_block)


def test_two_pieces_are_under_way_on_each_link() -> None:
    pacer = Pacer(100, None)
    first, second, third, elsewhere = piece("r", 0), piece("r", 1), piece("r", 2), piece("s", 0, B)
    for it in (first, second, third, elsewhere):
        pacer.put(it)
    assert pacer.take(0.0) == [first, elsewhere, second]
    assert pacer.take(0.0) == []
    end(pacer, first)
    assert pacer.take(0.0) == [third]


def test_all_links_together_stay_within_the_budget_and_a_piece_beyond_it_goes_alone() -> None:
    pacer = Pacer(15, None)
    small, other, huge = piece("r", 0), piece("s", 0, B), piece("t", 0, A, num_bytes=99)
    for it in (small, other, huge):
        pacer.put(it)
    order = []
    while taken := pacer.take(0.0):
        assert len(taken) == 1
        order += taken
        end(pacer, *taken)
    assert order == [small, other, huge]


def test_links_take_turns() -> None:
    pacer = Pacer(10, None)
    for it in (piece("r", 0), piece("r", 1), piece("s", 0, B)):
        pacer.put(it)
    order = []
    while taken := pacer.take(0.0):
        order += taken
        end(pacer, *taken)
    assert [it.receiver for it in order] == [A, B, A]


def test_a_rate_spaces_the_pieces() -> None:
    pacer = Pacer(100, bytes_per_s=10)
    first, second = piece("r", 0), piece("s", 0, B)
    pacer.put(first)
    pacer.put(second)
    assert pacer.take(5.0) == [first]
    assert pacer.take(5.8) == []
    assert pacer.take(5.9) == [second]


def test_a_rate_is_reached_by_who_looks_ten_times_a_second() -> None:
    pacer = Pacer(1000, bytes_per_s=150)
    for index in range(1000):
        pacer.put(piece("r", index))
    num_bytes = 0
    for tick in range(100):
        taken = []
        while pieces := pacer.take(tick / 10):
            taken += pieces
            end(pacer, *pieces)
        num_bytes += sum(it.num_bytes for it in taken)
    assert num_bytes == pytest.approx(1500, rel=0.03)


def test_what_has_not_left_can_be_taken_back_and_nobody_else_is_touched() -> None:
    pacer = Pacer(100, None)
    mine = [piece("r", index) for index in range(3)]
    other = piece("s", 0)
    for it in (mine[0], other, mine[1], mine[2]):
        pacer.put(it)
    assert pacer.take(0.0) == [mine[0], other]
    assert pacer.withdraw("r", EPOCH) == mine[1:]
    end(pacer, mine[0])
    assert pacer.take(0.0) == []
    assert pacer.withdraw("s", EPOCH) == []


def test_the_end_of_what_did_not_leave_from_here_is_nothing() -> None:
    pacer = Pacer(100, None)
    mine = piece("r", 0)
    pacer.put(mine)
    pacer.take(0.0)
    pacer.ended("r", EPOCH, 7)
    pacer.put(piece("r", 1))
    pacer.put(piece("r", 2))
    assert pacer.take(0.0) == [piece("r", 1)]


def make_range(num_blocks: int, receiver: Holder = A, block_bytes: int = 10) -> Piece:
    whole = piece("r", 0, receiver)
    return replace(whole, num_blocks=num_blocks, num_bytes=num_blocks * block_bytes)


def blocks(pieces: list[Piece]) -> list[tuple[int, int]]:
    return [(it.first_block, it.num_blocks) for it in pieces]


def test_a_piece_is_cut_to_its_size_when_it_leaves() -> None:
    pacer = Pacer(1000, None, piece_bytes=35)
    pacer.put(make_range(8))
    first, second = pacer.take(0.0)
    end(pacer, first, second)
    assert blocks([first, second, *pacer.take(0.0)]) == [(0, 3), (3, 3), (6, 2)]


def test_on_a_slow_link_a_piece_is_what_moves_in_a_moment_and_one_block_at_least() -> None:
    pacer = Pacer(10_000, None, piece_bytes=400)
    pacer.learned({"a": 40 / PIECE_S, "b": 1.0})
    pacer.put(make_range(100))
    pacer.put(make_range(100, B))
    assert sorted(blocks(pacer.take(0.0))) == [(0, 1), (0, 4), (1, 1), (4, 4)]


def test_however_fast_a_link_no_piece_is_larger_than_allowed() -> None:
    pacer = Pacer(10_000, None, piece_bytes=400)
    pacer.learned({"a": 1e12})
    pacer.put(make_range(100))
    assert blocks(pacer.take(0.0)) == [(0, 40), (40, 40)]


def test_a_link_that_becomes_slow_is_given_less_from_then_on() -> None:
    pacer = Pacer(10_000, None, piece_bytes=400)
    pacer.put(make_range(100))
    first, second = pacer.take(0.0)
    pacer.learned({"a": 50 / PIECE_S})
    end(pacer, first, second)
    assert blocks(pacer.take(0.0)) == [(80, 5), (85, 5)]


def test_what_has_been_cut_off_is_withdrawn_as_one() -> None:
    pacer = Pacer(10_000, None, piece_bytes=100)
    pacer.put(make_range(50))
    pacer.take(0.0)
    assert blocks(pacer.withdraw("r", EPOCH)) == [(20, 30)]


def test_links_take_turns_with_what_they_have_been_cut() -> None:
    pacer = Pacer(1000, None, piece_bytes=100)
    pacer.put(make_range(30))
    pacer.put(make_range(30, B))
    assert [it.receiver for it in pacer.take(0.0)] == [A, B, A, B]


def test_a_large_piece_is_cut_to_what_small_ones_leave_of_the_budget() -> None:
    pacer = Pacer(100, None, piece_bytes=1000)
    pacer.learned({"b": 30 / PIECE_S})
    pacer.put(make_range(100, B))
    slow = pacer.take(0.0)
    assert [it.num_bytes for it in slow] == [30, 30]
    pacer.put(replace(make_range(100, A), request_id="fast"))
    fast = pacer.take(0.0)
    assert [(it.receiver, it.num_bytes) for it in fast] == [(A, 40)]
    end(pacer, slow[0])
    assert [(it.receiver, it.num_bytes) for it in pacer.take(0.0)] == [(B, 30)]
    end(pacer, *fast)
    assert [(it.receiver, it.num_bytes) for it in pacer.take(0.0)] == [(A, 40)]
