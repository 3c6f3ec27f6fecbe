"""Straight lines between points: fast for one value, and to the bit the same for many."""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


class PiecewiseLinear:
    """Through (x, y), `x` rising; before the first point and beyond the last, as the line there goes on."""

    __slots__ = ("_arrays", "_last", "_slopes", "_xs", "_ys")

    def __init__(self, x: Sequence[float], y: ArrayLike) -> None:
        xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        slopes = np.diff(ys) / np.diff(xs)
        self._arrays = xs, ys, slopes
        self._xs, self._ys, self._slopes = xs.tolist(), ys.tolist(), slopes.tolist()
        self._last = len(self._slopes) - 1

    def __call__(self, x: float) -> float:
        at = self._line(x)
        value: float = self._ys[at] + self._slopes[at] * (x - self._xs[at])
        return value

    def many(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """`x` rising; at least one."""
        xs, ys, slopes = self._arrays
        first, last = self._line(x[0]), self._line(x[-1])
        at: int | NDArray[np.intp] = first
        if first != last:
            at = np.minimum(np.maximum(np.searchsorted(xs, x, side="right") - 1, 0), self._last)
        values: NDArray[np.float64] = ys[at] + slopes[at] * (x - xs[at])
        return values

    def _line(self, x: float) -> int:
        at = bisect_right(self._xs, x) - 1
        return 0 if at < 0 else min(at, self._last)
