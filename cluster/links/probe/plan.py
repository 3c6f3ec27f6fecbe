"""What a probe sends next: pure; it is told how long each transfer took.

Growing: each size twice, four times as large as the last, until the latency hardly counts or the next would take too
long. That opens the connection's window, and tells what is too long. Trying, where transfers may be split: one
connection against two, two against four. Measuring: rounds of a few sizes from the largest down to the smallest, until
every other round says the same as the rest, or the budget is spent.
"""

from collections.abc import Generator
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from cluster.topology.fit import fit_link
from cluster.topology.link_model import LinkModel

SMALLEST_BYTES = 4 << 10
SPLIT_BYTES = 1 << 20
"""Below this, one connection is as good as several: a transfer spends its time waiting for answers."""

_GROWTH = 4
_LATENCY_PART = 0.02  # of the largest transfer's time: then it says all there is to say about the bandwidth
_LONG_LATENCY = 2.0  # a transfer that takes little more than the latency says nothing of the bandwidth
_LONGEST_S = 1.0
_TRIALS = 3
_BETTER = 1.1  # by so much more connections have to be faster
_LONG_TRIAL = 4.0  # a trial that is worth it may take so many times as long as other transfers
_MIN_ROUNDS, _MAX_ROUNDS = 4, 16
_ROUND = _GROWTH / (_GROWTH - 1)  # of the largest transfer's time
_SAME_BETA, _SAME_ALPHA = 0.03, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeLimits:
    """A single transfer should take no longer than `max_transfer_s`, or twice the latency, by what is known before.

    From `split_bytes` on, transfers may go over several connections.
    """

    budget_s: float = 1.0
    max_transfer_s: float = 0.05
    max_bytes: int = 64 << 20
    max_connections: int = 4
    split_bytes: int = SPLIT_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeStep:
    """`counts`: what it takes is a measurement. `num_kept`: the link keeps so many connections (0: all)."""

    num_bytes: int
    num_connections: int = 1
    num_kept: int = 0
    counts: bool = False


class Timed(NamedTuple):
    """A transfer that was timed; `ended_s`: after the probe's beginning."""

    num_bytes: int
    seconds: float
    ended_s: float


# Steps out, seconds in.
_Steps = Generator[ProbeStep, float, None]


class _SplitFailed(Exception):
    """More connections cannot be had."""


class ProbePlan:
    """`step`: what is to be sent next, None when it is over. `num_connections`: over so many should transfers go from
    `split_bytes` on; what it was before, unless that was tried.
    """

    def __init__(self, limits: ProbeLimits, num_connections: int = 1) -> None:
        self._limits = limits
        self.num_connections = num_connections
        self._can_split = False
        self._best: dict[tuple[int, int], float] = {}  # seconds by size and connections
        self._largest = SMALLEST_BYTES
        self._grown: list[Timed] = []
        self._rounds: list[list[Timed]] = []
        self._elapsed_s = 0.0
        self._steps = self._run()
        self.step: ProbeStep | None = next(self._steps)

    def took(self, seconds: float, elapsed_s: float, *, can_split: bool) -> None:
        """The step has taken so long; `elapsed_s` since the probe began."""
        assert self.step is not None
        self._elapsed_s, self._can_split = elapsed_s, can_split
        kind = self.step.num_bytes, self.step.num_connections
        self._best[kind] = min(seconds, self._best.get(kind, seconds))
        try:
            self.step = self._steps.send(seconds)
        except StopIteration:
            self.step = None

    def failed(self) -> None:
        """The step came to nothing. When it was over several connections, it goes on with one; else it is over."""
        assert self.step is not None
        try:
            self.step = self._steps.throw(_SplitFailed()) if self.step.num_connections > 1 else None
        except (StopIteration, _SplitFailed):
            self.step = None

    @property
    def samples(self) -> list[Timed]:
        """What was measured; where the budget was too short for a round, what came before it, too."""
        measured = [sample for each in self._rounds for sample in each]
        return measured if len(self._rounds) > 1 else [*self._grown[1:], *measured]

    @property
    def is_telling(self) -> bool:
        """Whether latency and bandwidth can be told apart."""
        return len({sample.num_bytes for sample in self.samples}) > 1

    def _run(self) -> _Steps:
        yield from self._warm_up(1)
        yield from self._grow(1)
        try:
            if self._can_split:
                yield from self._try_connections()
            yield from self._measure()
        except _SplitFailed:
            self.num_connections = 1
            self._rounds.clear()
            yield from self._measure()

    def _warm_up(self, count: int) -> _Steps:
        for _ in range(2):
            self._grown.append(self._timed((yield ProbeStep(num_bytes=self._largest, num_connections=count))))

    def _grow(self, count: int) -> _Steps:
        while self._may_grow(count):
            self._largest *= _GROWTH
            yield from self._warm_up(count)

    def _may_grow(self, count: int) -> bool:
        larger = self._largest * _GROWTH
        seconds = self._predict_s(larger, count)
        if self._largest == SMALLEST_BYTES:  # from one size alone nothing follows: a second one may exceed the budget
            return seconds <= _LONGEST_S or self._affords(2 * seconds)
        if larger > self._limits.max_bytes:
            return False
        latency_s = self._best[SMALLEST_BYTES, 1]
        is_short = seconds <= max(self._limits.max_transfer_s, _LONG_LATENCY * latency_s)
        latency_counts = latency_s > _LATENCY_PART * self._predict_s(self._largest, count)
        return is_short and latency_counts and self._affords((2 + _MIN_ROUNDS * _ROUND) * seconds)

    def _try_connections(self) -> _Steps:
        size = max(self._largest // _GROWTH, self._limits.split_bytes)
        if self._predict_s(size, 1) > _LONG_TRIAL * self._limits.max_transfer_s:
            return
        self.num_connections = 1
        while (more := 2 * self.num_connections) <= self._limits.max_connections:
            if not self._affords((2 + 2 * _TRIALS + _MIN_ROUNDS) * self._predict_s(size, self.num_connections)):
                break
            for _ in range(2):
                yield ProbeStep(num_bytes=size, num_connections=more)  # new ones have to warm up too
            took: dict[int, list[float]] = {self.num_connections: [], more: []}
            for _ in range(_TRIALS):
                for count, times in took.items():
                    times.append((yield ProbeStep(num_bytes=size, num_connections=count)))
            if median(took[self.num_connections]) < _BETTER * median(took[more]):
                break
            self.num_connections = more
        yield ProbeStep(num_bytes=SMALLEST_BYTES, num_kept=self.num_connections)
        if self.num_connections > 1:
            self._largest = size
            yield from self._grow(self.num_connections)

    def _measure(self) -> _Steps:
        """From the largest on: it leaves the window open for what comes after it.

        Where large transfers are split, what is in between goes by other rules than both ends: it is left out.
        """
        least = self._limits.split_bytes if self.num_connections > 1 else SMALLEST_BYTES
        sizes = {size for share in (1, 4, 16) if (size := self._largest // share) >= least} | {SMALLEST_BYTES}
        while len(self._rounds) < _MAX_ROUNDS and not self._is_settled():
            self._rounds.append([])
            for size in sorted(sizes, reverse=True):
                count = self.num_connections if size >= self._limits.split_bytes else 1
                if not self._affords(self._predict_s(size, count)):
                    return
                step = ProbeStep(num_bytes=size, num_connections=count, counts=True)
                self._rounds[-1].append(self._timed((yield step)))

    def _is_settled(self) -> bool:
        if len(self._rounds) < _MIN_ROUNDS:
            return False
        one, other = (_fit(self._rounds[start::2]) for start in (0, 1))
        if one is None or other is None:
            return False
        alike = abs(one.beta_bytes_per_s / other.beta_bytes_per_s - 1.0) <= _SAME_BETA
        return alike and abs(one.alpha_s - other.alpha_s) <= _SAME_ALPHA * max(one.alpha_s, other.alpha_s)

    def _timed(self, seconds: float) -> Timed:
        assert self.step is not None
        return Timed(self.step.num_bytes, seconds, self._elapsed_s)

    def _affords(self, seconds: float) -> bool:
        return self._elapsed_s + seconds <= self._limits.budget_s

    def _predict_s(self, num_bytes: int, count: int) -> float:
        """Over so many connections; from the largest size that was timed over them, or else over one."""
        known = [(size, over) for size, over in self._best if size <= num_bytes and over == count] or [
            (size, over) for size, over in self._best if size <= num_bytes and over == 1
        ]
        nearest = max(known)
        latency_s = self._best[SMALLEST_BYTES, 1] if nearest[0] > SMALLEST_BYTES else 0.0
        return latency_s + (self._best[nearest] - latency_s) * num_bytes / nearest[0]


def _fit(rounds: list[list[Timed]]) -> LinkModel | None:
    return fit_link([(sample.num_bytes, sample.seconds) for each in rounds for sample in each])
