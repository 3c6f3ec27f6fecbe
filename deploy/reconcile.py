"""Target against observed: what has to be made now. Pure, so that every order of deaths can be tried."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 30.0
_STABLE_AFTER_S = 60.0


class Life(Enum):
    STARTING = auto()
    RUNNING = auto()
    GONE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A member as last seen. `num_deaths`: since it last ran for long; `retry_at_s`: when a gone one is made again."""

    life: Life
    since_s: float
    num_deaths: int = 0
    retry_at_s: float = 0.0


def started(before: Observed | None, now_s: float) -> Observed:
    return Observed(life=Life.STARTING, since_s=now_s, num_deaths=before.num_deaths if before else 0)


def running(before: Observed, now_s: float) -> Observed:
    return Observed(life=Life.RUNNING, since_s=now_s, num_deaths=before.num_deaths)


def gone(before: Observed, now_s: float) -> Observed:
    """Each death in quick succession doubles the wait, so that what cannot run does not keep the machine busy."""
    was_stable = before.life is Life.RUNNING and now_s - before.since_s >= _STABLE_AFTER_S
    num_deaths = 1 if was_stable else before.num_deaths + 1
    delay_s = min(_FIRST_DELAY_S * 2.0 ** (num_deaths - 1), _LONGEST_DELAY_S)
    return Observed(life=Life.GONE, since_s=now_s, num_deaths=num_deaths, retry_at_s=now_s + delay_s)


def to_create(targets: Iterable[str], observed: Mapping[str, Observed], now_s: float) -> list[str]:
    """The targets that were never made, or are gone and have waited long enough."""
    return [
        name
        for name in targets
        if name not in observed or (observed[name].life is Life.GONE and observed[name].retry_at_s <= now_s)
    ]


def next_retry_s(observed: Mapping[str, Observed]) -> float | None:
    """When to look again even if nothing happens; None: only when something does."""
    return min((member.retry_at_s for member in observed.values() if member.life is Life.GONE), default=None)
