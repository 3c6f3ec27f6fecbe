"""An event loop whose time passes at once when nobody has anything to do: timeouts without waiting for them."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class _WaitlessLoop(asyncio.SelectorEventLoop):
    """What is slow in it does not use up time, so a busy machine cannot make a timeout expire early."""

    def __init__(self) -> None:
        self._now_s = 0.0
        super().__init__(_WaitlessSelector(self))

    def time(self) -> float:
        return self._now_s

    def skip(self, seconds: float) -> None:
        self._now_s += seconds


class _WaitlessSelector(selectors.DefaultSelector):
    def __init__(self, loop: _WaitlessLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Waits only where no timer is set. Under one, what another thread is at work on is not waited for."""
        ready = super().select(None if timeout is None else 0)
        if not ready and timeout is not None:
            self._loop.skip(timeout)
        return ready


def run_without_waiting(work: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=_WaitlessLoop) as runner:
        return runner.run(work)
