"""The rate at which attainment crosses what is wanted."""

import pytest

from deploy.planner.goodput.crossing import crossing
from deploy.planner.goodput.estimate import Attainment

pytestmark = pytest.mark.unit


def falling(rate):
    share = max(0.0, 1.0 - rate / 100.0)
    return Attainment(ttft=share, tpot=1.0, both=share)


@pytest.mark.parametrize("expected", [5.0, 9.9, 10.0, 11.0, 20.0])
def test_it_is_found_from_either_side(expected):
    found = crossing(falling, 0.9, expected)
    assert found.rate == pytest.approx(10.0)
    assert found.attainment.both == 0.9


def test_who_meets_the_slos_at_no_rate_has_none():
    assert crossing(lambda rate: Attainment(ttft=0.0, tpot=1.0, both=0.0), 0.9, 10.0).rate is None


def test_who_meets_them_at_every_rate_that_is_tried_serves_that_much_at_least():
    found = crossing(lambda rate: Attainment(ttft=1.0, tpot=1.0, both=1.0), 0.9, 10.0)
    assert found.rate is not None
    assert found.rate > 10.0
    assert found.is_beyond
