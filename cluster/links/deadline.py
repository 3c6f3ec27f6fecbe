"""A point in time at which a wait is over."""

import time
from dataclasses import dataclass

from cluster.links.errors import LinkError


@dataclass(frozen=True, slots=True)
class Deadline:
    """`at_ns` is on CLOCK_MONOTONIC, which processes of one host (and time namespace) share."""

    at_ns: int
    wait: str
    seconds: float

    @classmethod
    def after(cls, seconds: float, wait: str) -> "Deadline":
        """`wait` says in the error what was waited for."""
        return cls(time.monotonic_ns() + int(seconds * 1e9), wait, seconds)

    def remaining_s(self) -> float:
        """Raises LinkError when nothing remains."""
        if (remaining_ns := self.at_ns - time.monotonic_ns()) <= 0:
            raise self.missed()
        return remaining_ns / 1e9

    def missed(self) -> LinkError:
        return LinkError(f"no {self.wait} within {self.seconds:g} s")
