import pytest

from deploy.planner.goodput.best_first import RESOLUTION
from deploy.planner.goodput.estimate import Attainment
from deploy.planner.goodput.highest_rate import highest_rate

pytestmark = pytest.mark.unit


class Trials:
    def __init__(self, limit):
        self.limit, self.rates = limit, []

    def __call__(self, rate):
        self.rates.append(rate)
        share = 0.95 if rate <= self.limit else 0.5
        return Attainment(ttft=share, tpot=1.0, both=share)


@pytest.mark.parametrize("limit", [0.3, 1.0, 4.7, 9.99, 10.0])
@pytest.mark.parametrize("expected", [None, 0.5, 5.0, 50.0])
def test_it_is_found_to_the_resolution(limit, expected):
    trials = Trials(limit)
    found = highest_rate(trials, 0.9, above=0.0, at_most=10.0, expected=expected)
    assert found.rate is not None
    assert limit * (1 - 1.5 * RESOLUTION) <= found.rate <= limit
    assert found.attainment.both >= 0.9
    assert len(trials.rates) <= 20


def test_who_does_not_beat_the_best_is_tried_once():
    trials = Trials(4.0)
    found = highest_rate(trials, 0.9, above=5.0, at_most=10.0, expected=None)
    assert found.rate is None
    assert found.attainment.both == 0.5
    assert trials.rates == [5.0]


def test_a_rate_that_was_asked_for_is_tried_once():
    trials = Trials(4.0)
    assert highest_rate(trials, 0.9, above=4.0, at_most=4.0, expected=None).rate == 4.0
    assert trials.rates == [4.0]


def test_what_serves_nobody_is_given_up():
    trials = Trials(0.0)
    assert highest_rate(trials, 0.9, above=0.0, at_most=10.0, expected=None).rate is None
    assert len(trials.rates) < 20
