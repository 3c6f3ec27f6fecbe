"""The threads that touch the core, one at a time: events in, a step, effects out, for as long as the instance lives.

    step loop:   events -> plan -> effects -> the model computes -> update -> effects -> events ...
    mid-step:                                  events of handovers -> effects

What is posted is taken in order. While the model computes, which is most of the time and touches nothing of the core, a
second thread takes what the step does not have to be over for: a handover does not wait for other sequences' steps.

Where the model computes on a device beside the host, that is not kept waiting for what came of the last step: its
effects go out, in the same order, when the next one is launched; at once where there is none.

    step loop:   events -> plan -> launch -> effects -> the tokens come -> update -> events -> plan -> launch ...
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as List
from functools import partial

from cluster.engine.scheduler_output import SampledToken, SchedulerOutput
from cluster.instance.core import InstanceCore
from cluster.instance.effects import Effect
from cluster.model.errors import OutOfDeviceMemory

_TICK_S = 0.1

Event = Callable[[], None]

log = logging.getLogger(__name__)


class StepLoop:
    """`deliver` gets the effects of each turn; `on_tick` runs some times a second. Whoever has the core calls them.

    An exception in a step is the end of the instance, whose state can no longer be trusted: `on_failure` hears of it.
    But for a step without memory: its requests may run elsewhere, and the others go on.
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
        self._has_core = threading.Lock()
        inbox = threading.Lock()
        self._boundary, self._middle = threading.Condition(inbox), threading.Condition(inbox)
        self._inbox: deque[tuple[Event, bool]] = deque()
        self._is_computing = False
        self._is_stopping = False
        self._next_tick_s = 0.0
        self._threads = [
            threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
            for work, name in ((self._step, "step loop"), (self._serve_mid_step, "mid-step"))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def post(self, event: Event, *, mid_step: bool = False) -> None:
        """From any thread: calls the core before the next step; `mid_step`: or while one computes.

        That is for what neither takes blocks from a sequence that is in the step nor changes its tokens.
        """
        with self._boundary:
            self._inbox.append((event, mid_step))
            if not self._is_computing:
                self._boundary.notify()
            elif mid_step:
                self._middle.notify()

    def stop(self) -> None:
        """Ends after the step under way, and waits for that."""
        with self._boundary:
            self._end()
        for thread in self._threads:
            thread.join()

    def _end(self) -> None:
        self._is_stopping = True
        self._boundary.notify()
        self._middle.notify()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            while not self._is_stopping:
                work()
            with self._has_core:
                self._flush()
        except Exception as error:
            log.exception("the step loop failed")
            self._on_failure(error)
            with self._boundary:
                self._end()

    def _step(self) -> None:
        self._wait_for_work()
        with self._has_core:
            self._take_events(mid_step=False)
            output = self._plan()
            if output is None or self._core.launcher is None:
                self._flush()
            self._set_computing(output is not None)
        if output is not None:
            self._compute(output)

    def _compute(self, output: SchedulerOutput) -> None:
        try:
            sampled = self._run_model(output)
        except OutOfDeviceMemory as error:
            log.warning("a step is given up: %s", error)
            end = partial(self._core.give_up, output, str(error))
        else:
            end = partial(self._core.finish, output, sampled, reports_later=self._core.launcher is not None)
        self._set_computing(False)
        with self._has_core:
            end(time.monotonic())
            if self._core.launcher is None or not self._core.has_work:
                self._flush()

    def _run_model(self, output: SchedulerOutput) -> List[SampledToken]:
        launcher = self._core.launcher
        if launcher is None:
            return self._core.run(output)
        try:
            if output.scheduled:
                launcher.launch(output)
        finally:  # also what came of the last step when this one fails
            with self._has_core:
                self._flush()
        return launcher.collect() if output.scheduled else ()

    def _wait_for_work(self) -> None:
        with self._boundary:
            if not self._core.has_work:
                idle_s = max(0.0, self._next_tick_s - time.monotonic())
                self._boundary.wait_for(lambda: self._inbox or self._is_stopping, idle_s)

    def _plan(self) -> SchedulerOutput | None:
        now_s = time.monotonic()
        if now_s >= self._next_tick_s:
            self._next_tick_s = now_s + _TICK_S
            self._core.report_stepped()
            self._core.tick(now_s)
            self._on_tick()
        return self._core.plan(now_s)

    def _set_computing(self, is_computing: bool) -> None:
        with self._boundary:
            self._is_computing = is_computing
            if self._has_mid_step_event():
                self._middle.notify()

    def _serve_mid_step(self) -> None:
        with self._middle:
            self._middle.wait_for(lambda: self._has_mid_step_event() or self._is_stopping)
        with self._has_core:
            self._take_events(mid_step=True)
            self._flush()

    def _has_mid_step_event(self) -> bool:
        return self._is_computing and bool(self._inbox) and self._inbox[0][1]

    def _take_events(self, *, mid_step: bool) -> None:
        while (event := self._next_event(mid_step)) is not None:
            self._core.report_stepped()
            event()

    def _next_event(self, mid_step: bool) -> Event | None:
        with self._boundary:
            may_take = self._has_mid_step_event() if mid_step else bool(self._inbox)
            return self._inbox.popleft()[0] if may_take else None

    def _flush(self) -> None:
        self._core.report_stepped()
        if self._core.effects:
            effects = list(self._core.effects)
            self._core.effects.clear()
            self._deliver(effects)
