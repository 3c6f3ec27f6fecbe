"""The one thread that touches the core: events in, a step, effects out, for as long as the instance lives."""

import logging
import queue
import threading
import time
from collections.abc import Callable

from cluster.instance.core import InstanceCore
from cluster.instance.effects import Effect

_TICK_S = 0.1

Event = Callable[[], None]

log = logging.getLogger(__name__)


class StepLoop:
    """`deliver` gets the effects of each turn, and `on_tick` runs some times a second; both in this thread.

    An exception in a step is the end of the instance, whose state can no longer be trusted: `on_failure` hears of it.
    """

    def __init__(
        self,
        core: InstanceCore,
        deliver: Callable[[list[Effect]], None],
        on_tick: Callable[[], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._core = core
        self._deliver = deliver
        self._on_tick = on_tick
        self._on_failure = on_failure
        self._inbox: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._next_tick_s = 0.0
        self._thread = threading.Thread(target=self._run, name="step loop", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def post(self, event: Event) -> None:
        """From any thread: calls the core before the next step."""
        self._inbox.put(event)

    def stop(self) -> None:
        """Ends after the step under way, and waits for that."""
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._take_events():
                self._turn()
        except Exception as error:
            log.exception("the step loop failed")
            self._on_failure(error)

    def _turn(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._next_tick_s:
            self._next_tick_s = now_s + _TICK_S
            self._core.tick(now_s)
            self._on_tick()
        output = self._core.plan(now_s)
        self._flush()
        if output is not None:
            self._core.compute(output, now_s)
            self._flush()

    def _flush(self) -> None:
        if self._core.effects:
            effects = list(self._core.effects)
            self._core.effects.clear()
            self._deliver(effects)

    def _take_events(self) -> bool:
        """All that wait; the first is waited for when there is nothing to compute. False: stop."""
        try:
            event = self._inbox.get(timeout=self._idle_s())
            while event is not None:
                event()
                event = self._inbox.get_nowait()
        except queue.Empty:
            return True
        return False

    def _idle_s(self) -> float:
        return 0.0 if self._core.has_work else max(0.0, self._next_tick_s - time.monotonic())
