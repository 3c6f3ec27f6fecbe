"""The highest rate that still meets the SLOs, found with few trials."""

from collections.abc import Callable

from deploy.planner.goodput.best_first import RESOLUTION
from deploy.planner.goodput.estimate import NOTHING, Attainment
from deploy.planner.goodput.evaluation import Answer

_STEP = 1.1  # and its square next, while the other side is not known
_LEAST = 0.01  # of what cannot be exceeded: below, it is taken to serve nobody


def highest_rate(
    attain: Callable[[float], Attainment], wanted: float, *, above: float, at_most: float, expected: float | None
) -> Answer:
    """`attain(rate)`: what a trial gives. More and more from what is expected on, then halving what is left."""
    low, high, best, missed = 0.0, at_most, NOTHING, NOTHING
    if above > 0.0:
        first = attain(above)
        if first.both < wanted:
            return Answer(rate=None, attainment=first)
        low, best = above, first
    is_reached = False  # whether `high` is known to be too much
    guess = min(expected if expected is not None else 0.7 * at_most, at_most)
    guess, step = max(guess, low * _STEP), _STEP
    while high > low * (1.0 + RESOLUTION) and high > _LEAST * at_most:
        guess = min(max(guess, low * (1.0 + RESOLUTION)), high)
        if is_reached and guess == high:
            break
        found = attain(guess)
        if found.both >= wanted:
            low, best = guess, found
            guess = guess * step if not is_reached else (low * high) ** 0.5
        else:
            high, missed, is_reached = guess, found, True
            guess = (low * high) ** 0.5 if low else guess / step
        step *= step
    return Answer(rate=low, attainment=best) if low else Answer(rate=None, attainment=missed)
