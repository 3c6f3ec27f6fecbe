"""Stop strings in a text that comes in pieces."""

from collections.abc import Sequence


class StopStrings:
    """Passes text on up to the stop string that is complete first (of several that end together, the longest).

    The end of the text is held back while it may begin a stop string. Nothing depends on where pieces end.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self.matched = False

    def push(self, text: str) -> str:
        """The text that no stop string can touch any more; what follows a match is dropped."""
        if self.matched:
            return ""
        if not self._stop:
            return text
        self._held += text
        start = self._first_match()
        if start is not None:
            self.matched = True
            return self._release(start)
        return self._release(len(self._held) - self._num_undecided())

    def flush(self) -> str:
        """What was held back, at the end of the text."""
        return "" if self.matched else self._release(len(self._held))

    def _release(self, end: int) -> str:
        released, self._held = self._held[:end], self._held[end:]
        return released

    def _first_match(self) -> int | None:
        """Where the stop string begins that ends first."""
        found = [(start + len(stop), start) for stop in self._stop if (start := self._held.find(stop)) >= 0]
        return min(found)[1] if found else None

    def _num_undecided(self) -> int:
        """The length of the longest end of the text that begins a stop string."""
        longest = min(len(self._held), max(map(len, self._stop)) - 1)
        return next(
            (n for n in range(longest, 0, -1) if any(stop.startswith(self._held[-n:]) for stop in self._stop)), 0
        )
