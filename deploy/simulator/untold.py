"""What the front does not know yet of an instance whose steps were passed over, but would, had each told of itself."""

from collections import deque
from collections.abc import Callable
from math import inf

from cluster.messages import Holder
from deploy.simulator.stretch import Stretch

Load = tuple[int, int]
"""Tokens that wait, and how many dispatches were seen: what `Member.observe_load` takes."""

Behind = tuple[Holder, int, Load | None]
"""An instance, of how many tokens it has told nobody, and its load if that is not known."""


class Untold:
    """`num_untold`: tokens that clients were seen to have, and that nobody was told of.

    `load_then`: as it was after the last step that was passed over, and when that is to be told.
    """

    def __init__(self, message_s: float) -> None:
        self.num_untold = 0
        self.load_then: Load = (0, 0)
        self._load_due_s = inf
        self._message_s = message_s
        self._late: deque[tuple[float, int]] = deque()  # of how many tokens clients hear only then

    def hear_late(self, count: int, now_s: float) -> None:
        """Of so many, only in a moment."""
        if count and self._message_s:
            self._late.append((now_s + self._message_s, count))

    def ends(self, load: Load, now_s: float) -> None:
        """The steps that are passed over."""
        self.load_then, self._load_due_s = load, now_s + self._message_s

    def told(self) -> None:
        """From here on step by step."""
        self._load_due_s = inf

    def count(self, stretch: Stretch | None, now_s: float, *, has_ended_now: bool) -> int:
        """Of tokens that the front would know of by now."""
        count = self.num_untold
        while self._late and self._late[0][0] <= now_s:
            self._late.popleft()
        count -= sum(num_late for _, num_late in self._late)
        if stretch is not None:
            count += stretch.num_untold(now_s, has_ended_now=has_ended_now)
        return count

    def load(
        self, load: Callable[[], Load], stretch: Stretch | None, now_s: float, *, has_ended_now: bool
    ) -> Load | None:
        """What steps would have told of the load, where they were passed over; once. `load()`: as it is."""
        then = None
        if now_s >= self._load_due_s:
            then, self._load_due_s = self.load_then, inf
        if stretch is None or stretch.is_load_told:
            return then
        if stretch.num_heard(now_s, has_ended_now=has_ended_now):
            stretch.is_load_told = True
            then = load()
        return then
