"""Asks answered by simulation, several at a time: each in a process of its own."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Self

from deploy.errors import DeployError
from deploy.planner.goodput.estimate import Attainment
from deploy.planner.goodput.evaluation import Answer, Ask
from deploy.planner.goodput.highest_rate import highest_rate
from deploy.planner.goodput.layout import Layout
from deploy.planning.trial import Setting, run_trial

OnProgress = Callable[[int], None]
"""Told how many asks have been answered in all."""


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

    def evaluate(self, asks: Sequence[Ask]) -> list[Answer]:
        """In the order of the asks."""
        if self._pool is None:
            found = (answer(self._setting, ask) for ask in asks)
        else:
            found = (future.result() for future in [self._pool.submit(_answer, ask) for ask in asks])
        try:
            return [self._counted(each) for each in found]
        except BrokenProcessPool as error:
            raise DeployError("a process of the planner died; it may have run out of memory") from error

    def attainment(self, layout: Layout, rate: float) -> Attainment:
        return run_trial(self._setting, layout, rate)

    def _counted(self, each: Answer) -> Answer:
        self._num_answered += 1
        if self._on_progress is not None:
            self._on_progress(self._num_answered)
        return each


def answer(setting: Setting, ask: Ask) -> Answer:
    """By bisection on the rate; every trial has the same requests and gaps."""
    return highest_rate(
        lambda rate: run_trial(setting, ask.layout, rate, ask.phase),
        setting.slos.attainment,
        above=ask.above,
        at_most=ask.at_most,
        expected=ask.expected,
    )


_setting: Setting | None = None  # of this process, when it is a worker


def _begin(setting: Setting) -> None:
    global _setting
    _setting = setting


def _answer(ask: Ask) -> Answer:
    assert _setting is not None, "a worker begins with a setting"
    return answer(_setting, ask)
