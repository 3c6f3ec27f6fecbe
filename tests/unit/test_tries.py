"""Tries of a measurement: the median counts, and only those that scatter are made more often."""

import itertools

import pytest

from tests.netns.tries import MAX_TRIES, MIN_TRIES, around, assert_medians

pytestmark = pytest.mark.unit


def num_tries(*values: float) -> int:
    """These, over and over; how many of them were wanted."""
    given: list[float] = []

    def measure() -> tuple[float]:
        given.append(next(endless))
        return (given[-1],)

    endless = itertools.cycle(values)
    assert_medians(measure, around("rate", 100.0, 10.0))
    return len(given)


def test_tries_that_agree_are_few(capsys):
    assert num_tries(98.0, 101.0, 99.0) == MIN_TRIES
    assert "3 of 3 tries right" in capsys.readouterr().out


def test_one_that_is_wrong_changes_nothing(capsys):
    assert num_tries(40.0, 101.0, 99.0, 98.0, 102.0) == MIN_TRIES
    assert "2 of 3 tries right" in capsys.readouterr().out


def test_one_that_is_right_is_not_enough():
    with pytest.raises(AssertionError, match="rate 80"):
        num_tries(80.0, 79.0, 100.0, 81.0, 80.0)


def test_tries_that_scatter_are_more():
    assert MIN_TRIES < num_tries(60.0, 70.0, 99.0, 80.0, 101.0, *[100.0] * 20) < MAX_TRIES


def test_they_end():
    assert num_tries(90.0, 100.0, 110.0, 85.0, 120.0) == MAX_TRIES
