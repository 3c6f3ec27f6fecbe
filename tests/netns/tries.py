"""A measurement is made several times: a single one may be of a moment when this machine did something else.

Medians count, never the best. Only when the tries scatter, or are wrong in the median, there are more of them: what
disturbs this machine passes, a defect stays.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

MIN_TRIES, MAX_TRIES = 3, 41
_SCATTER = 0.25  # of what is allowed from lowest to highest: so far from their median half of the tries may be


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Where a measured value has to be."""

    what: str
    lowest: float
    highest: float

    def holds(self, value: float) -> bool:
        return self.lowest <= value <= self.highest


def around(what: str, value: float, tolerance: float) -> Range:
    return Range(what=what, lowest=value - tolerance, highest=value + tolerance)


def scatter(values: Sequence[float]) -> float:
    """The median of their distances from their median."""
    middle = median(values)
    return median(abs(value - middle) for value in values)


def assert_medians(measure: Callable[[], Sequence[float]], *ranges: Range) -> None:
    """`measure` gives a value for each range. Prints the medians, and how many tries were right."""
    tries: list[Sequence[float]] = []
    while len(tries) < MIN_TRIES or (len(tries) < MAX_TRIES and not _tell(tries, ranges)):
        tries.append(measure())
    num_right = sum(all(each.holds(value) for each, value in zip(ranges, found, strict=True)) for found in tries)
    medians = _medians(tries)
    said = ", ".join(
        f"{each.what} {value:.4g} ({each.lowest:.4g} to {each.highest:.4g})"
        for each, value in zip(ranges, medians, strict=True)
    )
    print(f"{said}; {num_right} of {len(tries)} tries right")
    assert all(each.holds(value) for each, value in zip(ranges, medians, strict=True)), said


def _tell(tries: Sequence[Sequence[float]], ranges: Sequence[Range]) -> bool:
    """They are right in the median, and near to each other."""
    return all(
        each.holds(middle) and scatter(values) <= _SCATTER * (each.highest - each.lowest)
        for each, middle, values in zip(ranges, _medians(tries), zip(*tries, strict=True), strict=True)
    )


def _medians(tries: Sequence[Sequence[float]]) -> list[float]:
    return [median(values) for values in zip(*tries, strict=True)]
