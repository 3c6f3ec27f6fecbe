"""The time of a simulation."""

import heapq
from collections.abc import Callable
from itertools import count

Act = Callable[[], None]

FIRST = -1
"""The rank of everything but steps: at one time, what is said is heard before anybody's step begins or ends."""


class Clock:
    """What is due happens in order of time; at one time by rank, then in the order in which it was set.

    Background is what happens again and again by itself, so that it alone is no reason to go on.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self.rank = FIRST  # the highest that has had its turn at this time
        self.num_events = 0
        self.num_ahead = 0  # without what is background
        self._due: list[tuple[float, int, int, bool, Act]] = []
        self._numbers = count()

    def at(self, when_s: float, act: Act, rank: int = FIRST) -> None:
        self.num_ahead += 1
        heapq.heappush(self._due, (when_s, rank, next(self._numbers), False, act))

    def after(self, delay_s: float, act: Act) -> None:
        self.at(self.now_s + delay_s, act)

    def in_background(self, delay_s: float, act: Act, rank: int = FIRST) -> None:
        heapq.heappush(self._due, (self.now_s + delay_s, rank, next(self._numbers), True, act))

    def run(self, is_over: Callable[[], bool]) -> None:
        while self._due and not is_over():
            when_s, rank, _, is_background, act = heapq.heappop(self._due)
            self.rank = rank if when_s > self.now_s else max(rank, self.rank)
            self.now_s = when_s
            self.num_events += 1
            self.num_ahead -= not is_background
            act()
