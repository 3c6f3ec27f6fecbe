"""What computes in a simulated instance: batches pass its stages one after another.

It may take more than one batch: with pipeline stages, the next as soon as the first stage is free; with a limit to the
context that it reads at once, what is planned beyond that waits in it for its turn. What is in there stands still in
the scheduler meanwhile, and what is said of it is heard when it comes out.
"""

from collections import deque
from collections.abc import Callable, Iterator
from collections.abc import Sequence as List

from cluster.engine.scheduler import Scheduler
from cluster.engine.scheduler_output import ScheduledSequence, SchedulerOutput
from cluster.latency.step_shape import StepShape
from deploy.simulator.carousel import Carousel, entry_of, step_of
from deploy.simulator.cluster import SimInstance

Event = Callable[[], None]


class Machine:
    """`free_s`: when each stage is. `is_deep`: it takes more than one batch, always or because it has too much for one.

    `planned` waits for the first stage; `under_way` with what they take there. `came_out`: who goes in again goes in
    this order, after those that are new. `held_up`: what is said of who is in there, and if in the middle of a step.
    """

    def __init__(self, spec: SimInstance, scheduler: Scheduler, host_step_s: float, now_s: float) -> None:
        self._latency, self._most = spec.latency, spec.max_context_tokens
        self._scheduler, self._host_step_s = scheduler, host_step_s
        self.free_s = [now_s] * spec.latency.num_stages
        self.is_deep = self.has_stages
        self.planned: deque[ScheduledSequence] = deque()
        self.under_way: deque[tuple[SchedulerOutput, float]] = deque()
        self.came_out: list[str] = []
        self.held_up: dict[str, list[tuple[Event, bool]]] = {}

    @property
    def has_stages(self) -> bool:
        """More than one."""
        return len(self.free_s) > 1

    # What goes in

    def put(self, output: SchedulerOutput) -> None:
        self.planned += self.in_turn(output)
        self.came_out = []
        if self._most is not None and sum(entry.start + entry.num_tokens for entry in self.planned) > self._most:
            self.is_deep = True
        if self.is_deep:
            for entry in output.scheduled:
                request_id = entry.sequence.request_id
                self._scheduler.freeze(request_id)
                if entry.sequence.output_token_ids:
                    self.held_up[request_id] = []

    def in_turn(self, output: SchedulerOutput) -> List[ScheduledSequence]:
        """Who is new, and then who has come out, in that order."""
        if not self.came_out:
            return output.scheduled
        planned = {entry.sequence.request_id: entry for entry in output.scheduled}
        again = [planned.pop(request_id) for request_id in self.came_out if request_id in planned]
        return [*planned.values(), *again]

    def hold_still(self) -> None:
        """Whoever is in there was thawed when its handover ended meanwhile."""
        batches = [entry for batch, _ in self.under_way for entry in batch.scheduled]
        for entry in [*batches, *self.planned]:
            request_id = entry.sequence.request_id
            is_here = self._scheduler.sequences.get(request_id) is entry.sequence
            if is_here and not self._scheduler.is_frozen(request_id):
                self._scheduler.freeze(request_id)

    def take_from(self, carousel: Carousel) -> None:
        """Wherever everybody is in there."""
        self.planned += map(entry_of, carousel.waiting)
        self.under_way += ((step_of(batch), busy_s) for batch, busy_s in carousel.under_way)
        for request_id in carousel.lanes:
            self.held_up[request_id] = []
        for lane in carousel.out:
            del self.held_up[lane.sequence.request_id]
            self._scheduler.thaw(lane.sequence.request_id)
            if self._most is not None:
                self.came_out.append(lane.sequence.request_id)
        self.is_deep = self.has_stages or bool(self.planned or self.under_way)

    # What it does

    def is_free(self, now_s: float) -> bool:
        """The first stage."""
        return not (self.under_way and self.free_s[0] > now_s)

    def next_batch(self) -> SchedulerOutput:
        """As much as it takes at once, of what was planned and in that order."""
        return SchedulerOutput(scheduled=tuple(self._next_entries()))

    def _next_entries(self) -> Iterator[ScheduledSequence]:
        """At least one; whole prompts count as context, too."""
        num_tokens = 0
        while self.planned:
            entry = self.planned[0]
            num_tokens += entry.start + entry.num_tokens
            if self._most is not None and num_tokens > self._most and num_tokens > entry.start + entry.num_tokens:
                return
            yield self.planned.popleft()

    def run(self, shape: StepShape, now_s: float) -> float:
        """When it comes out of the last stage."""
        at_s = now_s
        for stage, seconds in enumerate(self._latency.stages_s(shape)):
            at_s = max(at_s, self.free_s[stage]) + (seconds + self._host_step_s if stage == 0 else seconds)
            self.free_s[stage] = at_s
        return at_s

    def take_out(self, batch: SchedulerOutput) -> list[tuple[Event, bool]]:
        """What was said of these meanwhile."""
        held_up: list[tuple[Event, bool]] = []
        if self._most is not None:
            self.came_out += [entry.sequence.request_id for entry in batch.scheduled]
        if self.is_deep:
            for entry in batch.scheduled:
                self._scheduler.thaw(entry.sequence.request_id)
                held_up += self.held_up.pop(entry.sequence.request_id, [])
            self.is_deep = self.has_stages or bool(self.planned)
        return held_up
