"""The body of a simulated instance: its real core, called when a real body would call it.

    turn: what has come -> (tick) -> plan -> effects        a step's time later, its end: finish -> effects -> turn
    between both, what concerns handovers is heard at once, as `step_loop.py` does

A machine may take more than one batch: with pipeline stages, the next as soon as the first stage is free; with a limit
to the context that it reads at once, what is planned beyond that waits in the machine for its turn. What is in there
stands still in the scheduler meanwhile, and what is said of it is heard when it comes out.
"""

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

from cluster.engine.block_manager import BlockManager
from cluster.engine.engine import Engine
from cluster.engine.scheduler import Scheduler, SchedulerConfig
from cluster.engine.scheduler_output import ScheduledSequence, SchedulerOutput
from cluster.instance.config import CoreConfig, RoleSettings
from cluster.instance.core import InstanceCore
from cluster.instance.effects import Effect
from cluster.links.slot_table import SlotTable
from cluster.messages import FrontMessage, HandOver, Holder, Probe
from cluster.role import InstanceStatus, RolePolicy
from cluster.snapshot import InstanceSnapshot
from deploy.roles import ROLE_POLICIES
from deploy.simulator.clock import Clock
from deploy.simulator.cluster import SimCluster, SimInstance
from deploy.simulator.report import InstanceUse
from deploy.simulator.steps import NoChecksums, OwnTokens, shape_of

Event = Callable[[], None]


class Instance:
    """One life. `deliver` gets its effects; `report` a snapshot every `snapshot_interval_s`.

    `rank` is its place among those that step at the same time; `num_ranks` how many there are.
    """

    def __init__(
        self,
        holder: Holder,
        spec: SimInstance,
        cluster: SimCluster,
        clock: Clock,
        use: InstanceUse,
        deliver: Callable[["Instance", list[Effect]], None],
        report: Callable[[InstanceSnapshot], None],
        rank: int,
        num_ranks: int,
    ) -> None:
        self.holder, self.spec, self.use = holder, spec, use
        self._clock = clock
        self._deliver, self._report = deliver, report
        self._rank, self._turn_rank = rank, num_ranks + rank
        self._interval_s = cluster.snapshot_interval_s
        self._host_step_s = cluster.host_step_s
        blocks = BlockManager(spec.num_blocks, spec.block_size, enable_prefix_caching=spec.enable_prefix_caching)
        self.scheduler = Scheduler(_scheduler_config(spec), blocks)
        self.slots = SlotTable(self._on_quiet)
        engine = Engine(self.scheduler, OwnTokens())
        core_config = CoreConfig(
            handover=cluster.handover,
            retention_s=0.0,
            record_bytes=spec.block_bytes,
            roles={role: _role_settings(spec, role_policy) for role, role_policy in ROLE_POLICIES.items()},
        )
        self.core = InstanceCore(holder, spec.role, engine, self.slots, NoChecksums(), core_config)
        self.is_dead = False
        self._inbox: deque[tuple[Event, bool]] = deque()
        self._is_turning = False
        self._next_tick_s = clock.now_s
        self._free_s = [clock.now_s] * spec.latency.num_stages
        self._is_deep = spec.latency.num_stages > 1  # or as long as it has more than it can take at once
        self._planned: deque[ScheduledSequence] = deque()
        self._came_out: list[str] = []  # who goes in again goes in this order, after those that are new
        self._under_way: deque[SchedulerOutput] = deque()
        self._held_up: dict[str, list[tuple[Event, bool]]] = {}
        self._wake()

    # What comes

    def hear(self, front: str, message: FrontMessage) -> None:
        event = partial(self.core.on_front_message, front, message, self._clock.now_s)
        self.post(event, mid_step=isinstance(message, HandOver | Probe), request_id=getattr(message, "request_id", ""))

    def post(self, event: Event, *, mid_step: bool = True, request_id: str = "") -> None:
        """Calls the core before the next step; `mid_step`: or while one computes."""
        if request_id in self._held_up:
            self._held_up[request_id].append((event, mid_step))
            return
        self._inbox.append((event, mid_step))
        if not self.is_stepping:
            self._turn_soon()
        elif self._inbox[0][1]:
            self._take(mid_step=True)
            self._flush()

    @property
    def is_stepping(self) -> bool:
        """A step is in the machine, so that no other can be planned."""
        if not self._is_deep:
            return bool(self._under_way)
        return self.spec.max_context_tokens is None and self._free_s[0] > self._clock.now_s

    @property
    def is_busy(self) -> bool:
        return bool(self._under_way)

    def _on_quiet(self, reservation: int) -> None:
        self.post(partial(self.core.on_quiet, reservation))

    def _take(self, *, mid_step: bool) -> None:
        while self._inbox and (self._inbox[0][1] or not mid_step):
            self._inbox.popleft()[0]()

    def _flush(self) -> None:
        if self.core.effects:
            effects = list(self.core.effects)
            self.core.effects.clear()
            self._deliver(self, effects)

    # Steps

    def _turn_soon(self) -> None:
        if not self._is_turning:
            self._is_turning = True
            self._clock.at(self._clock.now_s, self._turn, self._turn_rank)

    def _turn(self) -> None:
        self._is_turning = False
        if self.is_dead or self.is_stepping:
            return
        now_s = self._clock.now_s
        self._take(mid_step=False)
        if now_s >= self._next_tick_s:
            self._tick(now_s)
        output = self.core.plan(now_s)
        if output is not None and not output.scheduled:
            self.core.compute(output, now_s)  # nobody fits: has_work is false from here on
        elif output is not None:
            self._put(output)
        self._flush()
        self._feed(now_s)

    def _tick(self, now_s: float) -> None:
        self._next_tick_s = now_s + self._interval_s
        self.core.tick(now_s)
        self._report(self.core.snapshot(InstanceStatus.RUNNING))

    def _wake(self) -> None:
        """An instance without work ticks, too."""
        if not self.is_dead:
            if not self.is_busy and self._clock.now_s >= self._next_tick_s:
                self._turn_soon()
            self._clock.in_background(self._interval_s, self._wake)

    # The machine

    def _put(self, output: SchedulerOutput) -> None:
        planned = {entry.sequence.request_id: entry for entry in output.scheduled}
        again = [planned.pop(request_id) for request_id in self._came_out if request_id in planned]
        self._planned += [*planned.values(), *again]
        self._came_out = []
        most = self.spec.max_context_tokens
        if most is not None and sum(entry.start + entry.num_tokens for entry in self._planned) > most:
            self._is_deep = True
        self.use.num_preemptions += len(output.preempted)
        self.use.peak_kv_use = max(self.use.peak_kv_use, self.kv_use)
        if self._is_deep:
            for entry in output.scheduled:
                request_id = entry.sequence.request_id
                self.scheduler.freeze(request_id)
                if entry.sequence.output_token_ids:
                    self._held_up[request_id] = []

    def _feed(self, now_s: float) -> None:
        """The first stage takes what was planned, in that order, as much as it can at once."""
        if not self._planned or (self._under_way and self._free_s[0] > now_s):
            return
        batch = SchedulerOutput(scheduled=tuple(self._next_batch()))
        self._count(batch)
        at_s, last = now_s, len(self._free_s) - 1
        for stage, seconds in enumerate(self.spec.latency.stages_s(shape_of(batch))):
            at_s = max(at_s, self._free_s[stage]) + (seconds + self._host_step_s if stage == 0 else seconds)
            self._free_s[stage] = at_s
            if stage == 0:
                self.use.busy_s += at_s - now_s
                if last:
                    self._clock.at(at_s, self._next, self._rank)
        self._under_way.append(batch)
        self._clock.at(at_s, self._end, self._rank)

    def _next_batch(self) -> Iterator[ScheduledSequence]:
        """At least one; whole prompts count as context, too."""
        most, num_tokens = self.spec.max_context_tokens, 0
        while self._planned:
            entry = self._planned[0]
            num_tokens += entry.start + entry.num_tokens
            if most is not None and num_tokens > most and num_tokens > entry.start + entry.num_tokens:
                return
            yield self._planned.popleft()

    def _next(self) -> None:
        if not self.is_dead:
            self._turn_soon()

    def _end(self) -> None:
        if self.is_dead:
            return
        batch = self._under_way.popleft()
        held_up = self._take_out(batch)
        self.core.finish(batch, self.core.run(batch), self._clock.now_s)
        self._flush()
        for event, mid_step in held_up:
            self.post(event, mid_step=mid_step)
        self._turn_soon()

    def _take_out(self, batch: SchedulerOutput) -> list[tuple[Event, bool]]:
        held_up: list[tuple[Event, bool]] = []
        if self.spec.max_context_tokens is not None:
            self._came_out += [entry.sequence.request_id for entry in batch.scheduled]
        if self._is_deep:
            for entry in batch.scheduled:
                self.scheduler.thaw(entry.sequence.request_id)
                held_up += self._held_up.pop(entry.sequence.request_id, [])
            self._is_deep = len(self._free_s) > 1 or bool(self._planned)
        return held_up

    def die(self) -> None:
        self.is_dead = True

    # What is told

    @property
    def kv_use(self) -> float:
        return 1.0 - self.scheduler.block_manager.num_free_blocks / self.spec.num_blocks

    def _count(self, batch: SchedulerOutput) -> None:
        use = self.use
        use.num_steps += 1
        for entry in batch.scheduled:
            if entry.num_tokens == 1 and entry.start:
                use.num_decode_tokens += 1
            else:
                use.num_prefill_tokens += entry.num_tokens


def _role_settings(spec: SimInstance, policy: RolePolicy) -> RoleSettings:
    budget = spec.token_budget or policy.token_budget(spec.saturation_tokens, spec.max_num_seqs)
    return RoleSettings(token_budget=budget, watermark_blocks=policy.watermark_blocks(spec.num_blocks))


def _scheduler_config(spec: SimInstance) -> SchedulerConfig:
    settings = _role_settings(spec, ROLE_POLICIES[spec.role])
    return SchedulerConfig(
        max_num_seqs=spec.max_num_seqs,
        max_num_batched_tokens=settings.token_budget,
        watermark_blocks=settings.watermark_blocks,
        max_model_len=spec.max_model_len,
    )
