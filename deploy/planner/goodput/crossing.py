"""The rate at which attainment falls below what is wanted, between two trials that are near to it."""

from collections.abc import Callable

from deploy.planner.goodput.estimate import Attainment
from deploy.planner.goodput.evaluation import Answer

_STEP = 1.06
_MAX_STEPS = 16


def crossing(attain: Callable[[float], Attainment], wanted: float, expected: float) -> Answer:
    """Steps from what is expected until both sides are known, then as if attainment fell in a straight line.

    `is_beyond`: the last step still met it.
    """
    rate, found = expected, attain(expected)
    is_met = found.both >= wanted
    for _ in range(_MAX_STEPS):
        next_rate = rate * _STEP if is_met else rate / _STEP
        other = attain(next_rate)
        if (other.both >= wanted) != is_met:
            low, high = ((rate, found), (next_rate, other)) if is_met else ((next_rate, other), (rate, found))
            return _between(low, high, wanted)
        rate, found = next_rate, other
    return Answer(rate=rate if is_met else None, attainment=found, is_beyond=is_met)


def _between(low: tuple[float, Attainment], high: tuple[float, Attainment], wanted: float) -> Answer:
    (low_rate, met), (high_rate, missed) = low, high
    share = (met.both - wanted) / (met.both - missed.both)

    def at(one: float, other: float) -> float:
        return one + share * (other - one)

    return Answer(
        rate=at(low_rate, high_rate),
        attainment=Attainment(ttft=at(met.ttft, missed.ttft), tpot=at(met.tpot, missed.tpot), both=wanted),
    )
