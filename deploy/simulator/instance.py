"""The body of a simulated instance: its real core, called when a real body would call it.

turn: what has come -> (tick) -> plan -> effects        a step's time later, its end: finish -> effects -> turn
between both, what concerns handovers is heard at once, as `step_loop.py` does
"""

from collections import deque
from collections.abc import Callable, Mapping
from collections.abc import Sequence as List
from dataclasses import replace
from functools import partial
from math import inf

from cluster.engine.block_manager import BlockManager
from cluster.engine.engine import Engine
from cluster.engine.scheduler import Scheduler, SchedulerConfig
from cluster.engine.scheduler_output import ScheduledSequence, SchedulerOutput
from cluster.instance.config import CoreConfig, RoleSettings
from cluster.instance.core import HEARD_MID_STEP, InstanceCore
from cluster.instance.effects import Effect, ToFront
from cluster.latency.step_shape import StepShape
from cluster.links.slot_table import SlotTable
from cluster.messages import AckActivated, AckFinished, Activated, FrontMessage, HandOver, Holder, StepUpdate
from cluster.role import InstanceRole, InstanceStatus, RolePolicy
from cluster.snapshot import InstanceSnapshot
from deploy.roles import ROLE_POLICIES
from deploy.simulator.carousel import Carousel, step_of
from deploy.simulator.client import Client
from deploy.simulator.clock import Clock
from deploy.simulator.cluster import SimCluster, SimInstance
from deploy.simulator.lane import Lane
from deploy.simulator.machine import Event, Machine
from deploy.simulator.recorder import Recorder
from deploy.simulator.report import InstanceUse
from deploy.simulator.steps import NoChecksums, OwnTokens, shape_of
from deploy.simulator.stretch import Stretch
from deploy.simulator.untold import Behind, Load, Untold

FRONT = "router/1"


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
        clients: Mapping[str, Client],
        recorder: Recorder,
        fast_forward: bool,
        use: InstanceUse,
        deliver: Callable[["Instance", list[Effect]], None],
        report: Callable[[InstanceSnapshot], None],
        rank: int,
        num_ranks: int,
    ) -> None:
        self.holder, self.spec, self.use = holder, spec, use
        self._clock = clock
        self._clients, self._recorder, self._fast_forward = clients, recorder, fast_forward
        self._deliver, self._report = deliver, report
        self._rank, self._turn_rank = rank, num_ranks + rank
        self._interval_s = cluster.snapshot_interval_s
        self._host_step_s, self._message_s = cluster.host_step_s, cluster.message_s
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
        self._machine = Machine(spec, self.scheduler, cluster.host_step_s, clock.now_s)
        self._must_catch_up = False
        self._stretch: Stretch | None = None
        self._staying: list[Lane] = []  # of the stretch that has just ended
        self._activated: list[str] = []  # since it began
        self._ended_s = -inf  # the last step
        self._untold = Untold(cluster.message_s)
        self._carousel: Carousel | None = None
        self._num_free = spec.num_blocks
        self._wake()

    # What comes

    def hear(self, front: str, message: FrontMessage) -> None:
        event = partial(self.core.on_front_message, front, message, self._clock.now_s)
        if isinstance(message, HandOver) and self._stretch is not None:  # the step under way may not have been planned
            self.scheduler._in_flight = step_of(self._stretch.lanes).scheduled
        self.post(
            event,
            mid_step=isinstance(message, HEARD_MID_STEP),
            request_id=getattr(message, "request_id", ""),
            is_about_blocks=not isinstance(message, AckActivated | AckFinished),
        )

    def post(self, event: Event, *, mid_step: bool = True, request_id: str = "", is_about_blocks: bool = True) -> None:
        """Calls the core before the next step; `mid_step`: or while one computes.

        `is_about_blocks`: blocks may be taken or become free.
        """
        if self._carousel is not None and not self._is_let_in(self._carousel, event, request_id, is_about_blocks):
            return
        if request_id in self._machine.held_up:
            self._machine.held_up[request_id].append((event, mid_step))
            return
        self._inbox.append((event, mid_step))
        if self._stretch is not None and not self._stretch.is_at_end:
            self._break_in(self._stretch, is_about_blocks=is_about_blocks)
        elif not self.is_stepping:
            self._turn_soon()
        elif self._inbox[0][1]:
            self._take(mid_step=True)
            self._flush()

    @property
    def is_stepping(self) -> bool:
        """A step is in the machine, so that no other can be planned."""
        machine = self._machine
        if not machine.is_deep:
            return bool(machine.under_way) or (self._stretch is not None and not self._stretch.is_at_end)
        return self.spec.max_context_tokens is None and machine.free_s[0] > self._clock.now_s

    @property
    def is_busy(self) -> bool:
        return bool(self._machine.under_way) or self._stretch is not None or self._carousel is not None

    def _on_quiet(self, reservation: int) -> None:
        self.post(partial(self.core.on_quiet, reservation))

    def _take(self, *, mid_step: bool) -> None:
        if self._carousel is not None and (self._must_catch_up or self.core.is_asked_for_room):
            self._carousel.catch_up()
            self._must_catch_up = False
        while self._inbox and (self._inbox[0][1] or not mid_step):
            self._inbox.popleft()[0]()

    def _flush(self) -> None:
        if self.core.effects:
            effects = list(self.core.effects)
            self.core.effects.clear()
            if self._stretch is not None:
                said = [effect.message for effect in effects if isinstance(effect, ToFront)]
                self._activated += [message.request_id for message in said if isinstance(message, Activated)]
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
        if self._stretch is not None and self._goes_on(self._stretch, now_s):
            return
        if self._staying and self._stay_together(now_s):
            return
        if self._carousel is not None and self._carousel.out and self.core.is_asked_for_room:
            self._unload()  # who has come out counts when room is given out
        self._take(mid_step=False)
        if now_s >= self._next_tick_s:
            self._tick(now_s)
        if self._carousel is not None and not self._can_go_round(self._carousel):
            self._unload()
        self._plan(now_s)
        self._feed(now_s)

    def _plan(self, now_s: float) -> None:
        if self._machine.is_deep:
            self._machine.hold_still()
        output = self.core.plan(now_s) or SchedulerOutput(scheduled=())
        self._flush()
        if self._carousel is not None:
            if self._goes_round(self._carousel, output, now_s):
                return
            self._unload()
            self._put(output)
            self._plan(now_s)  # of those who have just come out
        elif output.scheduled and not self._is_passed_over(output, now_s):
            self._put(output)
            self._tell_passed()  # from here on it is told step by step

    def _tick(self, now_s: float) -> None:
        self._next_tick_s = now_s + self._interval_s
        self.core.tick(now_s)
        seen = replace(
            self.core.snapshot(InstanceStatus.RUNNING), num_dispatches_seen=self.core.num_dispatches_seen(FRONT)
        )
        self._report(seen)
        if not self._is_decoder:
            self._untold.load_then = self._load()

    def _wake(self) -> None:
        """An instance without work ticks, too."""
        if not self.is_dead:
            if not self.is_busy and self._clock.now_s >= self._next_tick_s:
                self._turn_soon()
            self._clock.in_background(self._interval_s, self._wake)

    # The machine

    def _put(self, output: SchedulerOutput) -> None:
        self.use.num_preemptions += len(output.preempted)
        self.use.peak_kv_use = max(self.use.peak_kv_use, self.kv_use)
        self.use.num_cached_tokens += sum(map(_num_found, output.scheduled))
        self._machine.put(output)

    def _feed(self, now_s: float) -> None:
        machine = self._machine
        if self._carousel is not None:
            self._feed_from(self._carousel, now_s)
        elif machine.planned and machine.is_free(now_s):
            batch = machine.next_batch()
            machine.under_way.append((batch, self._run(shape_of(batch), now_s)))

    def _run(self, shape: StepShape, now_s: float) -> float:
        """How long it takes in the first stage."""
        machine = self._machine
        end_s = machine.run(shape, now_s)
        if machine.has_stages:
            self._clock.at(machine.free_s[0], self._next, self._rank)
        self._clock.at(end_s, self._end, self._rank)
        return machine.free_s[0] - now_s

    def _next(self) -> None:
        if not self.is_dead:
            self._turn_soon()

    def _end(self) -> None:
        if self.is_dead:
            return
        if self._carousel is not None:
            self._end_round(self._carousel, self._clock.now_s)
            return
        batch, busy_s = self._machine.under_way.popleft()
        self._count(batch, busy_s)
        self._ended_s = self._clock.now_s
        is_deep, held_up = self._machine.is_deep, self._machine.take_out(batch)
        if is_deep:
            self.core.step_times.begin(self._clock.now_s - busy_s)  # others have begun since
        self.core.finish(batch, self.core.run(batch), self._clock.now_s)
        self._flush()
        for event, mid_step in held_up:
            self.post(event, mid_step=mid_step)
        self._turn_soon()

    # Many steps at once

    def _is_passed_over(self, output: SchedulerOutput, now_s: float) -> bool:
        """False: this step is to be made by itself."""
        lanes = self._lanes(output) if self._fast_forward else []
        if not lanes:
            return False
        if self._machine.is_deep or sum(lane.context for lane in lanes) > (self.spec.max_context_tokens or inf):
            return self._load_carousel(lanes, now_s)
        return self._begin_stretch(lanes, now_s)

    def _begin_stretch(self, lanes: list[Lane], now_s: float) -> bool:
        stretch = Stretch(
            lanes,
            now_s,
            spec=self.spec,
            blocks=self.scheduler.block_manager,
            host_step_s=self._host_step_s,
            message_s=self._message_s,
            times=self.core.step_times,
            use=self.use,
            recorder=self._recorder,
            counted=self._untold,
        )
        if not stretch.go_on(self._next_tick_s):
            return False
        self._follow(lanes, now_s)
        self._machine.came_out, self._activated = [], []
        self._stretch = stretch
        self._expect_end(stretch)
        return True

    def _lanes(self, output: SchedulerOutput) -> list[Lane]:
        """Of a step in which everybody decodes, and which others like it can follow."""
        scheduler, count = self.scheduler, len(output.scheduled)
        if output.preempted or not self.core.is_settled or count >= self._budget:
            return []
        if self._machine.planned or self._machine.under_way or scheduler.num_waiting:
            return []
        num_late = int(self._message_s > 0.0 and self._ended_s == self._clock.now_s)
        lanes: list[Lane] = []
        for entry in self._machine.in_turn(output):
            sequence = entry.sequence
            num_output = len(sequence.output_token_ids)
            client = self._clients.get(sequence.request_id)
            if client is None or entry.num_tokens > 1 or not num_output:
                return []
            if not num_output - num_late <= client.num_tokens <= num_output:
                return []
            room = scheduler.max_num_tokens - len(sequence.prompt_token_ids)
            num_left = min(sequence.sampling_params.max_tokens, room) - num_output
            lanes.append(Lane(sequence, client, num_left, self.spec.block_size))
        return lanes

    def _follow(self, lanes: List[Lane], now_s: float) -> None:
        """What clients have is known from here on before the ledger is told of it."""
        num_late = 0
        for lane in lanes:
            lane.client.counted = self._untold
            num_output = len(lane.sequence.output_token_ids)
            if lane.client.num_tokens < num_output:  # the word of it is on its way
                lane.client.hear(num_output, now_s + self._message_s, self._recorder)
                num_late += 1
        self._untold.num_untold += num_late
        self._untold.hear_late(num_late, now_s)

    def _expect_end(self, stretch: Stretch) -> None:
        self._clock.at(stretch.ends_s[-1], partial(self._end_stretch, stretch, stretch.version), self._rank)

    def _has_turned(self) -> bool:
        """Whether a step of ours that ends at this moment has ended already."""
        return self._clock.rank >= self._rank

    def _break_in(self, stretch: Stretch, *, is_about_blocks: bool) -> None:
        """Something has come in the middle of it."""
        num_ended = stretch.num_ended(self._clock.now_s, has_ended_now=self._has_turned())
        if num_ended and stretch.ends_s[num_ended - 1] == self._clock.now_s:  # not in a step, but between two
            stretch.cut(num_ended)
            self._end_stretch(stretch, stretch.version)
        elif not self._inbox[0][1]:
            self._cut(stretch, num_ended + 1)
        else:
            if is_about_blocks:
                stretch.pass_to(num_ended, is_in_step=True)
            before = self._signature()
            self._take(mid_step=True)
            self._flush()
            if self._signature() != before:
                self._cut(stretch, num_ended + 1)
            elif (most := num_ended + 1 + stretch.num_with_room) < len(stretch.ends_s):
                self._cut(stretch, most)

    def _signature(self) -> tuple[bool, int, int, bool]:
        """What the next step is planned by, but for blocks that are taken."""
        scheduler = self.scheduler
        num_free = scheduler.block_manager.num_free_blocks
        has_freed, self._num_free = num_free > self._num_free, num_free
        return self.core.is_settled, scheduler.num_running, scheduler.num_waiting, has_freed

    def _cut(self, stretch: Stretch, num_steps: int) -> None:
        stretch.is_cut = True
        if len(stretch.ends_s) > num_steps:
            stretch.cut(num_steps)
            self._expect_end(stretch)

    def _end_stretch(self, stretch: Stretch, version: int) -> None:
        if self.is_dead or self._stretch is not stretch or stretch.version != version:
            return
        now_s = self._clock.now_s
        stretch.is_at_end = True
        ending = stretch.ending if self.core.is_settled else stretch.lanes
        if ending or stretch.is_cut:
            self._finish_stretch(stretch, ending, now_s)
        else:
            stretch.pass_to(len(stretch.ends_s), is_in_step=False)
        self._turn_soon()

    def _finish_stretch(self, stretch: Stretch, ending: list[Lane], now_s: float) -> None:
        order = [lane.sequence.request_id for lane in stretch.lanes]
        batch = stretch.leave(ending)
        self._land(batch, now_s, order, num_late=len(stretch.lanes))
        self._staying = stretch.lanes

    def _stay_together(self, now_s: float) -> bool:
        """Those who stay, and who has come, are all that runs, and nobody waits: the next step need not be planned."""
        lanes, self._staying = self._staying, []
        core, scheduler = self.core, self.scheduler
        if self._inbox:  # most often, that the end of those who left is acknowledged
            self._take(mid_step=False)
            if any(scheduler.sequences.get(lane.sequence.request_id) is not lane.sequence for lane in lanes):
                return False
        if now_s >= self._next_tick_s or not core.is_settled or core.is_asked_for_room:
            return False
        lanes = [*self._lanes(self._come), *lanes]
        if scheduler.num_running != len(lanes) or scheduler.num_waiting or len(lanes) >= self._budget:
            return False
        for lane in lanes:
            lane.context = lane.sequence.num_computed_tokens + 1
        most = self.spec.max_context_tokens
        if most is not None and (len(self._activated) > 1 or sum(lane.context for lane in lanes) > most):
            return False  # it is planned who goes first
        if not self._begin_stretch(lanes, now_s):
            return False
        self._flush()
        return True

    @property
    def _budget(self) -> int:
        return self.scheduler.config.max_num_batched_tokens

    @property
    def _come(self) -> SchedulerOutput:
        """The next step of those that were activated in the stretch that has just ended."""
        found = (self.scheduler.sequences.get(request_id) for request_id in self._activated)
        steps = (
            ScheduledSequence(sequence=it, start=it.num_computed_tokens, num_tokens=1, samples=True)
            for it in found
            if it is not None and it.num_computed_tokens == it.num_tokens - 1
        )
        return SchedulerOutput(scheduled=tuple(steps))

    def _goes_on(self, stretch: Stretch, now_s: float) -> bool:
        """Between two steps, of which the second is like the first. If not, the next is planned as any other."""
        if not self._inbox:
            before = self._signature()
            if now_s >= self._next_tick_s:
                self._tick(now_s)
                self._flush()
            if self._signature() == before and stretch.go_on(self._next_tick_s):
                self._expect_end(stretch)
                return True
        order = [lane.sequence.request_id for lane in stretch.lanes]
        self._land(SchedulerOutput(scheduled=()), now_s, order, num_late=len(order))
        return False

    def _land(self, last: SchedulerOutput, now_s: float, order: list[str], *, num_late: int) -> None:
        """`last`: who makes the last step by itself. `num_late`: of how many others clients hear only in a moment."""
        self._stretch = None
        self._ended_s = now_s
        self._untold.hear_late(num_late, now_s)
        if self.spec.max_context_tokens is not None:
            self._machine.came_out = order
        self._finish_counted(last, now_s)
        if not self._is_decoder:
            self._untold.ends(self._load(), now_s)

    def _finish_counted(self, last: SchedulerOutput, now_s: float) -> None:
        """The step itself is counted already."""
        self.core.step_times.begin(now_s)
        self.core.finish(last, self.core.run(last), now_s)
        self._flush()

    def _tell_passed(self) -> None:
        """With the load as the last step would have told it."""
        self._untold.told()
        if not self._untold.num_untold:
            return
        self.core.report()
        if not self._is_decoder:
            then = self._untold.load_then
            told: list[Effect] = []
            for effect in self.core.effects:
                if isinstance(effect, ToFront) and isinstance(effect.message, StepUpdate):
                    update = replace(effect.message, num_waiting_tokens=then[0], num_dispatches_seen=then[1])
                    told.append(ToFront(effect.front, update))
            self.core.effects.clear()
            self._deliver(self, told)
        self._flush()

    # A machine that takes turns

    def _load_carousel(self, lanes: list[Lane], now_s: float) -> bool:
        if not self._is_decoder:
            return False
        self._machine.is_deep, self._machine.came_out = True, []
        self._carousel = Carousel(
            blocks=self.scheduler.block_manager,
            message_s=self._message_s,
            times=self.core.step_times,
            use=self.use,
            recorder=self._recorder,
            counted=self._untold,
        )
        self._get_on(self._carousel, lanes, now_s)
        return True

    def _get_on(self, carousel: Carousel, lanes: list[Lane], now_s: float) -> None:
        for lane in lanes:
            self.scheduler.freeze(lane.sequence.request_id)
        self._follow(lanes, now_s)
        carousel.enter(lanes)

    def _can_go_round(self, carousel: Carousel) -> bool:
        if not carousel.has_room:
            carousel.catch_up()
        return carousel.has_room and self.core.is_settled and not self.scheduler.num_waiting

    def _goes_round(self, carousel: Carousel, output: SchedulerOutput, now_s: float) -> bool:
        """Takes in who is new, and who has come out."""
        if not carousel.has_room:
            carousel.catch_up()
        lanes = self._lanes(output) if output.scheduled else []
        if not carousel.has_room or not self.core.is_settled or len(output.scheduled) != len(lanes):
            return False
        self._get_on(carousel, lanes, now_s)
        return True

    def _is_let_in(self, carousel: Carousel, event: Event, request_id: str, is_about_blocks: bool) -> bool:
        """To one that goes round, nothing but acknowledgements is said without it being stopped."""
        if request_id not in carousel.lanes:
            self._must_catch_up |= is_about_blocks
            return True
        if is_about_blocks:
            self._unload()
            return True
        event()
        return False

    def _feed_from(self, carousel: Carousel, now_s: float) -> None:
        if not carousel.waiting or (carousel.under_way and self._machine.free_s[0] > now_s):
            return
        if (shape := carousel.take(self.spec.max_context_tokens)) is not None:
            carousel.takes(self._run(shape, now_s))

    def _end_round(self, carousel: Carousel, now_s: float) -> None:
        self._ended_s = now_s
        ending = carousel.come_out(now_s)
        self._untold.hear_late(len(carousel.out), now_s)
        if ending:
            carousel.catch_up(ending)
            carousel.forget(ending)
            for lane in ending:
                self.scheduler.thaw(lane.sequence.request_id)
            self._finish_counted(step_of(ending), now_s)
        if not self._machine.has_stages and not carousel.waiting:
            self._unload()
        self._turn_soon()

    def _unload(self) -> None:
        """Back to steps that are made by themselves, wherever everybody is."""
        carousel, self._carousel = self._carousel, None
        assert carousel is not None
        carousel.catch_up()
        self._machine.take_from(carousel)

    def catch_up(self) -> None:
        """As if every step had been made by itself."""
        if (stretch := self._stretch) is not None and not stretch.is_at_end:
            now_s = self._clock.now_s
            num_ended = stretch.num_ended(now_s, has_ended_now=self._has_turned())
            is_between = num_ended > 0 and stretch.ends_s[num_ended - 1] == now_s
            stretch.pass_to(num_ended, is_in_step=not is_between)
        if self._carousel is not None:
            self._carousel.catch_up()

    def tell_all(self) -> None:
        self.catch_up()
        if self._untold.num_untold:
            self.core.report()
            self._flush()

    def untold(self) -> Behind | None:
        """What the front would know by now, had every step told of itself."""
        stretch, untold, now_s = self._stretch, self._untold, self._clock.now_s
        if stretch is None and not untold.num_untold:
            return None
        has_ended_now = self._has_turned()
        count = untold.count(stretch, now_s, has_ended_now=has_ended_now)
        if self._is_decoder:
            return self.holder, count, None
        return self.holder, count, untold.load(self._load, stretch, now_s, has_ended_now=has_ended_now)

    @property
    def _is_decoder(self) -> bool:
        """Of which nobody asks how much waits there."""
        return self.core.role is InstanceRole.DECODE

    def _load(self) -> Load:
        return self.scheduler.num_waiting_tokens, self.core.num_dispatches_seen(FRONT)

    def die(self) -> None:
        self.is_dead = True

    # What is told

    @property
    def kv_use(self) -> float:
        return 1.0 - self.scheduler.block_manager.num_free_blocks / self.spec.num_blocks

    def _count(self, batch: SchedulerOutput, busy_s: float) -> None:
        use = self.use
        use.busy_s += busy_s
        use.num_steps += 1
        for entry in batch.scheduled:
            if entry.num_tokens == 1 and entry.start:
                use.num_decode_tokens += 1
            else:
                use.num_prefill_tokens += entry.num_tokens


def _num_found(entry: ScheduledSequence) -> int:
    """Tokens of a prompt that were here already, with its first chunk."""
    sequence = entry.sequence
    return entry.start if not sequence.output_token_ids and entry.start == sequence.num_cached_tokens else 0


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
