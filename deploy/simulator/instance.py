"""The body of a simulated instance: its real core, called when a real body would call it.

    turn: what has come -> (tick) -> plan -> effects        a step's time later, its end: finish -> effects -> turn
    between both, what concerns handovers is heard at once, as `step_loop.py` does

With pipeline stages, the next step is planned as soon as the first stage is free. What is under way stands still in the
scheduler meanwhile, and what is said of it is heard when it comes out.
"""

from collections import deque
from collections.abc import Callable
from functools import partial

from cluster.engine.block_manager import BlockManager
from cluster.engine.engine import Engine
from cluster.engine.scheduler import Scheduler, SchedulerConfig
from cluster.engine.scheduler_output import SchedulerOutput
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
        self._under_way: deque[tuple[SchedulerOutput, float]] = deque()
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
        """A step is in the first stage, so that no other can be planned."""
        return bool(self._under_way) and (len(self._free_s) == 1 or self._free_s[0] > self._clock.now_s)

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
        if output is not None and output.scheduled:
            self._begin(output, now_s)
        elif output is not None:
            self.core.compute(output, now_s)  # nobody fits: has_work is false from here on
        self._flush()

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

    def _begin(self, output: SchedulerOutput, now_s: float) -> None:
        stages_s = self.spec.latency.stages_s(shape_of(output))
        at_s = now_s
        for stage, seconds in enumerate(stages_s):
            at_s = max(at_s, self._free_s[stage]) + (seconds + self._host_step_s if stage == 0 else seconds)
            self._free_s[stage] = at_s
        self._count(output, self._free_s[0] - now_s)
        self._under_way.append((output, max(stages_s)))
        self._clock.at(at_s, self._end, self._rank)
        if len(stages_s) > 1:
            self._stand_still(output)
            self._clock.at(self._free_s[0], self._next, self._rank)

    def _next(self) -> None:
        if not self.is_dead:
            self._turn_soon()

    def _end(self) -> None:
        if self.is_dead:
            return
        output, _ = self._under_way.popleft()
        held_up = self._go_on(output) if len(self._free_s) > 1 else []
        self.core.finish(output, self.core.run(output), self._clock.now_s)
        self._flush()
        for event, mid_step in held_up:
            self.post(event, mid_step=mid_step)
        self._turn_soon()

    def _stand_still(self, output: SchedulerOutput) -> None:
        for entry in output.scheduled:
            request_id = entry.sequence.request_id
            self.scheduler.freeze(request_id)
            if entry.sequence.output_token_ids:
                self._held_up[request_id] = []

    def _go_on(self, output: SchedulerOutput) -> list[tuple[Event, bool]]:
        held_up = []
        for entry in output.scheduled:
            self.scheduler.thaw(entry.sequence.request_id)
            held_up += self._held_up.pop(entry.sequence.request_id, [])
        return held_up

    def die(self) -> None:
        self.is_dead = True

    # What is told

    @property
    def kv_use(self) -> float:
        return 1.0 - self.scheduler.block_manager.num_free_blocks / self.spec.num_blocks

    def _count(self, output: SchedulerOutput, seconds: float) -> None:
        use = self.use
        use.busy_s += seconds
        use.num_steps += 1
        use.num_preemptions += len(output.preempted)
        for entry in output.scheduled:
            if entry.num_tokens == 1 and entry.start:
                use.num_decode_tokens += 1
            else:
                use.num_prefill_tokens += entry.num_tokens
        use.peak_kv_use = max(use.peak_kv_use, self.kv_use)


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
