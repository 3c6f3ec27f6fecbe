"""One transfer that is made to be timed."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeOutcome:
    """What became of a probe; `seconds` is None when it failed, `reason` then says why.

    `is_late`: it could not begin in time, because transfers went first.
    """

    transport: str = ""
    seconds: float | None = None
    ended_s: float = 0.0
    reason: str = ""
    is_late: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTransfer:
    """`num_connections`: over so many at once, where the transport has them; `num_kept`: the link keeps these (0: all).

    Not begun at `give_up_at_s` (of the monotonic clock), it fails. `on_end` is called once, from any thread.
    `counts`: it is a measurement, not a warm-up.
    """

    num_bytes: int
    num_connections: int = 1
    num_kept: int = 0
    counts: bool = True
    give_up_at_s: float
    on_end: Callable[[ProbeOutcome], None] = field(repr=False)
