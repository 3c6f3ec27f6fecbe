"""The most that gets from one place to another over ways of limited width (Edmonds and Karp)."""

from collections import deque
from collections.abc import Hashable
from math import inf

_NOTHING = 1e-9


class MaxFlow:
    def __init__(self) -> None:
        self._left: dict[Hashable, dict[Hashable, float]] = {}

    def connect(self, source: Hashable, target: Hashable, width: float) -> None:
        self._left.setdefault(source, {})[target] = self._left.get(source, {}).get(target, 0.0) + width
        self._left.setdefault(target, {}).setdefault(source, 0.0)

    def value(self, source: Hashable, sink: Hashable) -> float:
        total = 0.0
        while (way := self._shortest(source, sink)) is not None:
            width = min(self._left[near][far] for near, far in way)
            if width == inf:
                return inf
            for near, far in way:
                self._left[near][far] -= width
                self._left[far][near] += width
            total += width
        return total

    def _shortest(self, source: Hashable, sink: Hashable) -> list[tuple[Hashable, Hashable]] | None:
        """The steps of a way with the fewest on which something is left."""
        before: dict[Hashable, Hashable] = {source: source}
        waiting = deque([source])
        while waiting:
            here = waiting.popleft()
            if here == sink:
                break
            for there, left in self._left.get(here, {}).items():
                if left > _NOTHING and there not in before:
                    before[there] = here
                    waiting.append(there)
        if sink not in before:
            return None
        way, here = [], sink
        while here != source:
            way.append((before[here], here))
            here = before[here]
        return way[::-1]
