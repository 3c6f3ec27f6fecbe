"""An instance without its body: events in, effects out, one engine step at a time.

It owns the requests it hosts (`Hosted`), the handovers that leave (`Outbound`) and the reservations that wait
(`Inbound`). Only one thread may call it; it never waits. The simulator runs it as it is.
"""

from collections import deque
from collections.abc import Mapping
from collections.abc import Sequence as List

from cluster.engine.engine import Engine, Launcher
from cluster.engine.scheduler_output import SampledToken, SchedulerOutput, StepResult
from cluster.engine.sequence import Sequence, SequenceStatus
from cluster.instance.config import CoreConfig
from cluster.instance.effects import BlockChecksums, DropProbes, Effect, Slots, StartProbe, ToFront, ToSource
from cluster.instance.fences import Fences
from cluster.instance.hosted import Hosted, restore, sequence_from
from cluster.instance.inbound import Inbound
from cluster.instance.known_fronts import KnownFronts
from cluster.instance.outbound import Outbound
from cluster.instance.postponed import Postponed
from cluster.instance.retained import Retained, name_of
from cluster.instance.step_times import StepTimes
from cluster.messages import (
    AckActivated,
    AckFinished,
    Activated,
    BlockTransfer,
    CloseGrant,
    Dispatch,
    DispatchRefused,
    Epoch,
    FrontMessage,
    GrantRefused,
    HandOver,
    Holder,
    Holdings,
    InstanceMessage,
    Pass,
    PassedOn,
    Probe,
    ReceiverMessage,
    Refused,
    Renew,
    SetRole,
    SourceMessage,
    StepUpdate,
    Stop,
    TokenUpdate,
    WantTokens,
)
from cluster.role import InstanceRole, InstanceStatus
from cluster.snapshot import InstanceSnapshot

# What need not wait until the step is over: it takes no blocks from a sequence that is in it, nor changes its tokens.
HEARD_MID_STEP = HandOver | Probe | AckActivated | AckFinished

# The source's last words to the front may still be under way: these are said again rather than asked for.
_NUM_OVERLAP_TOKENS = 8


class InstanceCore:
    """`config.roles` says what each role means for the scheduler here."""

    def __init__(
        self,
        holder: Holder,
        role: InstanceRole,
        engine: Engine,
        slots: Slots,
        checksums: BlockChecksums,
        config: CoreConfig,
    ) -> None:
        self.holder = holder
        self.role = role
        self.effects: deque[Effect] = deque()
        self._config = config
        self._engine = engine
        self._scheduler = engine.scheduler
        self._checksums = checksums
        emit = self.effects.append
        handover, record_bytes = config.handover, config.record_bytes
        self._outbound = Outbound(handover, record_bytes, self._scheduler, checksums, emit, self._let_go)
        self._inbound = Inbound(self._scheduler, slots, checksums, emit, self._activate)
        self._hosted: dict[str, Hosted] = {}
        self._unreported: list[Hosted] = []
        self._postponed = Postponed()
        self._retained = Retained(config.retention_s)
        self._fences = Fences()
        self._fronts = KnownFronts(config.grace_s)
        self._dispatches_seen: dict[str, int] = {}
        self.step_times = StepTimes()
        self._num_fenced = 0
        self._num_bad_blocks = 0

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work

    @property
    def is_asked_for_room(self) -> bool:
        """A reservation waits for blocks."""
        return self._inbound.has_queued

    @property
    def is_settled(self) -> bool:
        """Nothing is leaving and nothing waits to begin: steps alone change what is here."""
        return not self._outbound and not self._postponed

    # What fronts say

    def on_front_joined(self, front: str) -> None:
        """It speaks to us from now on, and takes over what was an earlier life's of its name.

        What it is told must stay true while it asks others: no baton of an earlier term is taken from here on.
        """
        self._fronts.joined(front)
        self._dispatches_seen.pop(front, None)  # it counts from one again
        mine = [hosted for hosted in self._hosted.values() if name_of(hosted.front) == name_of(front)]
        for hosted in mine:
            hosted.front = front
        held = [hosted.held(self._grant_epoch(hosted)) for hosted in mine]
        waiting = self._postponed.on_front_joined(front)
        self._tell(front, Holdings(held=(*held, *waiting, *self._retained.of(front))))
        self._inbound.end_terms_before(self._fronts.term)

    def _grant_epoch(self, hosted: Hosted) -> Epoch | None:
        grant = self._outbound.expected_grant(hosted)
        return grant.epoch if grant else None

    def on_front_lost(self, front: str) -> None:
        """What it has here goes on for a while: it, or its next life, may come back."""
        self._fronts.lost(front)
        self.effects.append(DropProbes(front))

    def on_front_message(self, front: str, message: FrontMessage, now_s: float) -> None:
        if self._fronts.is_over(front):
            self._num_fenced += 1
            return
        match message:
            case SetRole():
                self._set_role(message.role)
            case Dispatch():
                self._on_dispatch(front, message, now_s)
            case HandOver():
                self._on_hand_over(front, message, now_s)
            case Stop():
                self._on_stop(message, now_s)
            case Probe():
                self.effects.append(StartProbe(front, message))
            case _:
                self._on_word(front, message, now_s)

    def _on_word(self, front: str, message: CloseGrant | AckActivated | AckFinished | WantTokens, now_s: float) -> None:
        """About a request that is here, unless it speaks of another epoch."""
        hosted = self._hosted.get(message.request_id)
        if hosted is None:
            if isinstance(message, CloseGrant):
                self._on_grant_closed_elsewhere(front, message)
        elif isinstance(message, CloseGrant):
            grant_epoch = self._grant_epoch(hosted)
            if grant_epoch is None or grant_epoch == message.epoch:
                self._outbound.on_grant_closed(hosted, now_s)
        elif hosted.epoch != message.epoch:
            self._num_fenced += 1
        else:
            self._on_word_about(hosted, message, now_s)

    def _on_grant_closed_elsewhere(self, front: str, message: CloseGrant) -> None:
        """The request does not run here: it has not begun yet, or it has been passed on."""
        if message.request_id in self._postponed:
            self._postponed.on_grant_closed(message)
        else:
            self._tell(front, PassedOn(request_id=message.request_id, epoch=message.epoch))

    def _on_word_about(self, hosted: Hosted, message: AckActivated | AckFinished | WantTokens, now_s: float) -> None:
        match message:
            case AckActivated():
                hosted.activation_acknowledged = True
            case AckFinished():
                if hosted.sequence.is_finished:
                    self._retained.put(hosted.held(None), now_s)
                    self._forget(hosted)
            case WantTokens():
                hosted.rewind(message.next_index)
                self._report([hosted])

    def _set_role(self, role: InstanceRole) -> None:
        """Role is data: nothing is loaded anew, and whatever runs here runs on."""
        self.role = role
        if settings := self._config.roles.get(role):
            self._scheduler.reconfigure(settings.token_budget, settings.watermark_blocks)

    def _on_dispatch(self, front: str, message: Dispatch, now_s: float) -> None:
        self._dispatches_seen[front] = message.number
        request_id = message.state.request_id
        reason = self._fences.refuses(request_id, message.epoch)
        hosted = self._hosted.get(request_id)
        if hosted is not None and hosted.epoch >= message.epoch:
            reason = "this instance has the request already"
        if reason is not None:
            self._refuse_dispatch(front, message, reason)
            return
        if hosted is not None:
            self._end(hosted, now_s)  # an earlier turn, which nobody listens to any more
        self._inbound.cancel(request_id, message.epoch)
        self._postponed.put(front, message)
        self._begin_postponed()

    def _begin_postponed(self) -> None:
        """A request begins here when nothing is left of its earlier turns: at once, unless blocks are quarantined."""
        for front, message in self._postponed.take(self._inbound.knows):
            self._begin(front, message)

    def _begin(self, front: str, message: Dispatch) -> None:
        hosted = Hosted(sequence=sequence_from(message.state), front=message.state.front, epoch=message.epoch)
        try:
            self._scheduler.add(hosted.sequence)
        except ValueError as error:
            self._refuse_dispatch(front, message, str(error))
            return
        hosted.num_reported = hosted.sequence.num_output_tokens
        self._retained.drop(hosted.request_id)
        self._hosted[hosted.request_id] = hosted
        if message.grant is not None:
            self._outbound.expect(hosted, message.grant)

    def _refuse_dispatch(self, front: str, message: Dispatch, reason: str) -> None:
        refused = DispatchRefused(request_id=message.state.request_id, epoch=message.epoch, reason=reason)
        self._tell(front, refused)

    def _on_hand_over(self, front: str, message: HandOver, now_s: float) -> None:
        hosted = self._hosted.get(message.request_id)
        reason = None
        if message.request_id in self._postponed:
            reason = "it has not begun yet"
        elif hosted is None or hosted.epoch != message.epoch:
            reason = "it is not here"
        elif hosted.sequence.is_finished:
            reason = "it has ended"
        elif self._outbound.expected_grant(hosted) is not None:
            reason = "it is being handed over already"
        if hosted is None or reason is not None:
            self._tell(
                front, GrantRefused(request_id=message.request_id, epoch=message.grant.epoch, reason=str(reason))
            )
        else:
            self._outbound.hand_over(hosted, message.grant, now_s)

    def _on_stop(self, message: Stop, now_s: float) -> None:
        request_id = message.request_id
        self._fence(request_id, message.epoch)
        hosted = self._hosted.get(request_id)
        if hosted is not None and hosted.epoch <= message.epoch:
            self._end(hosted, now_s)
        self._postponed.on_stop(message)

    def _end(self, hosted: Hosted, now_s: float) -> None:
        self._outbound.on_request_ended(hosted, now_s)
        self._let_go(hosted)

    def _let_go(self, hosted: Hosted) -> None:
        """Of exactly this life of the request: its id may be another's by now."""
        if self._scheduler.sequences.get(hosted.request_id) is hosted.sequence:
            self._scheduler.remove(hosted.request_id, SequenceStatus.FINISHED_ABORTED)
        self._forget(hosted)

    def _forget(self, hosted: Hosted) -> None:
        """What was said to this turn or before must not begin another when it arrives late: nobody would end that."""
        if self._hosted.get(hosted.request_id) is hosted:
            del self._hosted[hosted.request_id]
            self._fence(hosted.request_id, hosted.epoch)

    def _fence(self, request_id: str, epoch: Epoch) -> None:
        """No reservation stays behind a fence: even its Cancel would be refused there."""
        self._fences.raise_to(request_id, epoch)
        self._inbound.cancel(request_id, epoch)

    # What peers and links say

    def on_source_message(self, source: Holder, message: SourceMessage, now_s: float) -> None:
        if isinstance(message, Renew):
            self._inbound.renew(source, now_s)
            return
        hosted = self._hosted.get(message.request_id)
        holds = hosted is not None and hosted.epoch == message.epoch
        reason = self._fences.refuses(message.request_id, message.epoch)
        if not holds and message.epoch.term < self._fronts.term:
            reason = f"term {self._fronts.term} has begun"
        if reason is not None:
            self._num_fenced += 1
            refused = Refused(request_id=message.request_id, epoch=message.epoch, reason=reason)
            self.effects.append(ToSource(source, refused))
        else:
            self._inbound.on_source_message(source, message, holds, now_s)

    def on_source_lost(self, source: Holder) -> None:
        self._inbound.on_source_lost(source)

    def on_receiver_message(self, receiver: Holder, message: ReceiverMessage, now_s: float) -> None:
        if not self._outbound.on_receiver_message(receiver, message, now_s):
            self._num_fenced += 1

    def on_receiver_lost(self, receiver: Holder, now_s: float) -> None:
        self._outbound.on_receiver_lost(receiver, now_s)

    def on_transfer_ended(self, transfer: BlockTransfer, failure: str | None, now_s: float) -> None:
        self._outbound.on_transfer_ended(transfer, failure, now_s)

    def on_arrived(self, reservation: int, first_block: int, num_blocks: int, checksums: tuple[int, ...]) -> None:
        self._inbound.on_arrived(reservation, first_block, num_blocks, checksums)

    def on_bad(self, reservation: int, reason: str) -> None:
        self._num_bad_blocks += 1
        self._inbound.on_bad(reservation, reason)

    def on_quiet(self, reservation: int) -> None:
        self._inbound.on_quiet(reservation)

    def on_links_measured(self, link_speeds: Mapping[str, float]) -> None:
        """bytes/s to other instances, by name."""
        self._outbound.on_links_measured(link_speeds)

    def _activate(self, sequence: Sequence | None, baton: Pass) -> None:
        if sequence is None:
            sequence = sequence_from(baton.state)
            self._scheduler.add(sequence)
        else:
            restore(sequence, baton.state)
            sequence.num_computed_tokens = baton.num_computed_tokens
            self._scheduler.activate(sequence.request_id)
        hosted = Hosted(
            sequence=sequence,
            front=baton.state.front,
            epoch=baton.epoch,
            num_reported=max(0, baton.num_reported_tokens - _NUM_OVERLAP_TOKENS),
            activation_acknowledged=False,
        )
        self._retained.drop(hosted.request_id)
        self._hosted[hosted.request_id] = hosted
        self._announce(hosted)

    def _announce(self, hosted: Hosted) -> None:
        self._tell(hosted.front, Activated(request_id=hosted.request_id, epoch=hosted.epoch))

    # What time brings

    def tick(self, now_s: float) -> None:
        """Leases, repetitions, deadlines. Call it some times a second."""
        self._outbound.tick(now_s)
        self._inbound.expire_leases(now_s)
        expired = [self._hosted[sequence.request_id] for sequence in self._scheduler.expire(now_s)]
        for hosted in expired:
            self._outbound.on_request_ended(hosted, now_s)
        self._report(expired)
        for hosted in self._hosted.values():
            if not hosted.activation_acknowledged:
                self._announce(hosted)
        self._retained.expire(now_s)
        for orphan in self._fronts.orphans(self._hosted.values(), now_s):
            self._end(orphan, now_s)

    def plan(self, now_s: float) -> SchedulerOutput | None:
        """What the next step computes, if there is anything; room elsewhere is asked for before it is computed."""
        self._inbound.admit_queued()
        self._begin_postponed()
        if not self._scheduler.has_work:
            return None
        self.step_times.begin(now_s)
        output = self._scheduler.schedule()
        self._outbound.on_scheduled(output, now_s)
        return output

    def compute(self, output: SchedulerOutput, now_s: float) -> None:
        """The step itself, and what follows from it."""
        self.finish(output, self.run(output), now_s)

    def run(self, output: SchedulerOutput) -> List[SampledToken]:
        """The model's part. Meanwhile others may call what concerns handovers, and nothing else."""
        return self._engine.runner.run(output) if output.scheduled else []

    @property
    def launcher(self) -> Launcher | None:
        """For a step in two halves, with time between them: `run` is both."""
        return self._engine.launcher

    def finish(
        self, output: SchedulerOutput, sampled: List[SampledToken], now_s: float, *, reports_later: bool = False
    ) -> None:
        """`reports_later`: fronts hear of tokens from which nothing else follows by `report_stepped`, which is to be
        called before anything else but `plan`.
        """
        self.step_times.end(output, now_s)
        self._after(self._scheduler.update(output, sampled), now_s, reports_later)

    def give_up(self, output: SchedulerOutput, reason: str, now_s: float) -> None:
        """The step could not be computed: nothing of it counts, and its requests may run where there is more room."""
        for entry in output.scheduled:
            hosted = self._hosted.get(entry.sequence.request_id)
            if hosted is not None and hosted.sequence is entry.sequence:
                self._end(hosted, now_s)
                refused = DispatchRefused(
                    request_id=hosted.request_id, epoch=hosted.epoch, reason=reason, may_run_elsewhere=True
                )
                self._tell(hosted.front, refused)
        self._scheduler.update(SchedulerOutput(scheduled=()), ())  # nothing is in flight any more

    def _after(self, result: StepResult, now_s: float, reports_later: bool) -> None:
        if result.sealed:
            self._checksums.seal([block_id for sealed in result.sealed for block_id in sealed.block_ids])
        for sealed in result.sealed:
            hosted = self._hosted.get(sealed.sequence.request_id)
            if hosted is not None and not hosted.sequence.is_finished:
                self._outbound.on_sealed(hosted, now_s)
        stepped = [self._hosted[sequence.request_id] for sequence, _ in result.tokens]
        if reports_later:
            self._unreported += [hosted for hosted in stepped if not hosted.is_leaving]
            stepped = [hosted for hosted in stepped if hosted.is_leaving]
        self._report(stepped)
        for hosted in stepped:
            if hosted.sequence.is_finished:
                self._outbound.on_request_ended(hosted, now_s)
            elif hosted.is_passing:
                self._outbound.on_stepped(hosted, now_s)

    def report_stepped(self) -> None:
        """What a step that was finished with `reports_later` has left."""
        if self._unreported:
            stepped, self._unreported = self._unreported, []
            self._report(stepped)

    def report(self) -> None:
        """Everything that fronts have not been sent."""
        self._report(list(self._hosted.values()))

    def _report(self, stepped: list[Hosted]) -> None:
        """One message for each front, whatever the number of its requests."""
        by_front: dict[str, list[Hosted]] = {}
        for hosted in stepped:
            by_front.setdefault(hosted.front, []).append(hosted)
        for front, group in by_front.items():
            updates = tuple(update for hosted in group if (update := hosted.report()))
            if updates:
                self._tell(front, self._step_update(front, updates))

    def _step_update(self, front: str, updates: tuple[TokenUpdate, ...]) -> StepUpdate:
        return StepUpdate(
            updates=updates,
            num_waiting_tokens=self._scheduler.num_waiting_tokens,
            num_dispatches_seen=self.num_dispatches_seen(front),
        )

    def _tell(self, front: str, message: InstanceMessage) -> None:
        self.effects.append(ToFront(front, message))

    # What others may know

    def snapshot(self, status: InstanceStatus) -> InstanceSnapshot:
        scheduler, blocks = self._scheduler, self._scheduler.block_manager
        return InstanceSnapshot(
            instance=self.holder,
            role=self.role,
            status=status,
            num_waiting=scheduler.num_waiting,
            num_running=scheduler.num_running,
            num_sequences=len(self._hosted) + len(self._inbound) + len(self._postponed),
            num_blocks=blocks.num_blocks,
            num_free_blocks=blocks.num_free_blocks,
            num_reserved_blocks=scheduler.num_reserved_blocks,
            num_leaked_blocks=scheduler.num_leaked_blocks,
            num_waiting_tokens=scheduler.num_waiting_tokens,
            num_fenced=self._num_fenced,
            num_bad_blocks=self._num_bad_blocks,
            prefill_tokens_per_s=self.step_times.prefill_tokens_per_s,
            decode_step_s=self.step_times.decode_step_s,
            handovers=self._outbound.snapshots(self.holder.instance),
        )

    def num_dispatches_seen(self, front: str) -> int:
        return self._dispatches_seen.get(front, 0)
