"""Asks answered by simulation, several at a time: each in a process of its own."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self, TypeVar

from deploy.errors import DeployError
from deploy.planner.goodput.crossing import crossing
from deploy.planner.goodput.estimate import Attainment
from deploy.planner.goodput.evaluation import Answer, Ask
from deploy.planner.goodput.highest_rate import highest_rate
from deploy.planner.goodput.layout import Layout
from deploy.planning.trial import Setting, run_trial

OnProgress = Callable[[int], None]
"""Told how many asks have been answered in all."""


_CONFIRMED_REQUESTS = 8
"""What is confirmed has so many times the requests of the search at least."""

_CONFIRMED_WARM_UP = 0.5
"""Of what is confirmed the second half is judged: by then a queue or a batch that grows has grown."""

_LONGER = 2.0
_ROOM = 1.3  # beyond what can be served in the long run, to see when a trial cannot tell
_NEAR = 1.05  # so much more is within what a trial can tell


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Again:
    """With another seed: the highest rate near to this one or, unless `is_searched`, how it does at this one.

    `interval_s`: for so long at least.
    """

    layout: Layout
    seed: int
    rate: float
    interval_s: float = 0.0
    is_searched: bool = True


Asked = TypeVar("Asked", Ask, Again)


class Workers:
    """A context. `num_processes` 0: in this process, for small questions and for tests."""

    def __init__(
        self, setting: Setting, num_processes: int | None = None, on_progress: OnProgress | None = None
    ) -> None:
        self._setting, self._on_progress = setting, on_progress
        self._num_processes = (os.cpu_count() or 1) if num_processes is None else num_processes
        self._pool: ProcessPoolExecutor | None = None
        self._num_answered = 0

    def __enter__(self) -> Self:
        if self._num_processes:
            self._pool = ProcessPoolExecutor(
                self._num_processes, multiprocessing.get_context("spawn"), _begin, (self._setting,)
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=kind is None, cancel_futures=True)
            self._pool = None

    @property
    def num_at_once(self) -> int:
        return max(1, self._num_processes)

    def evaluate(self, asks: Sequence[Ask]) -> list[Answer]:
        """In the order of the asks."""
        return self._all(answer, asks)

    def evaluate_again(self, asks: Sequence[Again]) -> list[Answer]:
        """Likewise."""
        return self._all(answer_again, asks)

    def _all(self, function: Callable[[Setting, Asked], Answer], asks: Sequence[Asked]) -> list[Answer]:
        if self._pool is None:
            found = (function(self._setting, ask) for ask in asks)
        else:
            found = (future.result() for future in [self._pool.submit(_here, function, ask) for ask in asks])
        try:
            return [self._counted(each) for each in found]
        except BrokenProcessPool as error:
            raise DeployError("a process of the planner died; it may have run out of memory") from error

    def _counted(self, each: Answer) -> Answer:
        self._num_answered += 1
        if self._on_progress is not None:
            self._on_progress(self._num_answered)
        return each


def answer(setting: Setting, ask: Ask) -> Answer:
    """By bisection on the rate; every trial has the same requests and gaps.

    What is found is not cut to what can be served in the long run: where it is clearly more, trials were too short
    to tell, and longer ones are made, unless the answer may be rough. Who is asked for one rate only is asked for no
    other.
    """
    is_free = ask.at_most > ask.above
    found = _highest(setting, ask, _NEAR if is_free else 1.0)
    if not is_free or found.rate is None or found.rate < _NEAR * ask.at_most:
        return found
    if ask.is_rough:
        return replace(found, is_beyond=True)
    found = _highest(setting.longer(_LONGER), replace(ask, expected=ask.at_most), _ROOM)
    is_beyond = found.rate is not None and found.rate > _NEAR * ask.at_most
    return replace(found, is_beyond=is_beyond)


def _highest(setting: Setting, ask: Ask, room: float) -> Answer:
    """Up to so many times what can be served in the long run."""
    return highest_rate(
        lambda rate: run_trial(setting, ask.layout, rate, ask.phase),
        setting.slos.attainment,
        above=ask.above,
        at_most=room * ask.at_most,
        expected=ask.expected,
    )


def answer_again(setting: Setting, again: Again) -> Answer:
    """Where attainment crosses what is wanted; or what it is at the rate."""
    longer = replace(
        setting.with_seed(again.seed),
        interval_s=max(setting.interval_s, again.interval_s),
        warm_up=_CONFIRMED_WARM_UP,
        least_requests=_CONFIRMED_REQUESTS * setting.least_requests,
    )

    def attain(rate: float) -> Attainment:
        return run_trial(longer, again.layout, rate, to_the_end=True)

    if again.is_searched:
        return crossing(attain, setting.slos.attainment, again.rate)
    return Answer(rate=again.rate, attainment=attain(again.rate))


_setting: Setting | None = None  # of this process, when it is a worker


def _begin(setting: Setting) -> None:
    global _setting
    _setting = setting


def _here(function: Callable[[Setting, Asked], Answer], ask: Asked) -> Answer:
    assert _setting is not None, "a worker begins with a setting"
    return function(_setting, ask)
