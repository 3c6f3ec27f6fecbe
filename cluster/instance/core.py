"""An instance without its body: events in, effects out, one engine step at a time.

It owns the requests it hosts (`Hosted`), the handovers that leave (`Outbound`) and the reservations that wait
(`Inbound`). Only one thread may call it; it never waits. The simulator runs it as it is.
"""

from collections import deque

from cluster.engine.engine import Engine
from cluster.engine.scheduler_output import SchedulerOutput, StepResult
from cluster.engine.sequence import Sequence, SequenceStatus
from cluster.instance.config import HandoverConfig
from cluster.instance.effects import BlockChecksums, Effect, Slots, ToFront, ToSource
from cluster.instance.fences import Fences
from cluster.instance.hosted import Hosted, restore, sequence_from
from cluster.instance.inbound import Inbound
from cluster.instance.outbound import Outbound
from cluster.messages import (
    AckActivated,
    AckFinished,
    Activated,
    BlockTransfer,
    CloseGrant,
    Dispatch,
    DispatchRefused,
    FrontMessage,
    Holder,
    InstanceMessage,
    Pass,
    PassedOn,
    ReceiverMessage,
    Refused,
    Renew,
    SourceMessage,
    StepUpdate,
    Stop,
    TokenUpdate,
    WantTokens,
)
from cluster.role import InstanceRole, InstanceStatus
from cluster.snapshot import InstanceSnapshot


class InstanceCore:
    def __init__(
        self,
        holder: Holder,
        role: InstanceRole,
        engine: Engine,
        slots: Slots,
        checksums: BlockChecksums,
        handover: HandoverConfig,
    ) -> None:
        self.holder = holder
        self.role = role
        self.effects: deque[Effect] = deque()
        self._engine = engine
        self._scheduler = engine.scheduler
        self._checksums = checksums
        emit = self.effects.append
        self._outbound = Outbound(handover, self._scheduler, checksums, emit, self._let_go)
        self._inbound = Inbound(self._scheduler, slots, checksums, emit, self._activate)
        self._hosted: dict[str, Hosted] = {}
        self._fences = Fences()
        self._dispatches_seen: dict[str, int] = {}

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work

    # What fronts say

    def on_front_message(self, front: str, message: FrontMessage, now_s: float) -> None:
        if isinstance(message, Dispatch):
            self._on_dispatch(front, message, now_s)
        elif isinstance(message, Stop):
            self._on_stop(message)
        elif hosted := self._hosted_at(message.request_id, message):
            self._on_word_about(hosted, message, now_s)
        elif isinstance(message, CloseGrant) and message.request_id not in self._hosted:
            self._tell(front, PassedOn(request_id=message.request_id, epoch=message.epoch))

    def _hosted_at(
        self, request_id: str, message: CloseGrant | AckActivated | AckFinished | WantTokens
    ) -> Hosted | None:
        """The request a message speaks of, unless it is from another epoch."""
        hosted = self._hosted.get(request_id)
        if hosted is None:
            return None
        if isinstance(message, CloseGrant):
            speaks_of_it = hosted.handover is None or hosted.handover.grant.epoch == message.epoch
        else:
            speaks_of_it = hosted.epoch == message.epoch
        return hosted if speaks_of_it else None

    def _on_word_about(self, hosted: Hosted, message: FrontMessage, now_s: float) -> None:
        match message:
            case CloseGrant():
                self._outbound.on_grant_closed(hosted)
            case AckActivated():
                hosted.activation_acknowledged = True
            case AckFinished():
                if hosted.sequence.is_finished:
                    self._forget(hosted)
            case WantTokens():
                hosted.rewind(message.next_index)
                self._report([hosted])

    def _on_dispatch(self, front: str, message: Dispatch, now_s: float) -> None:
        self._dispatches_seen[front] = message.number
        request_id = message.state.request_id
        reason = self._fences.refuses(request_id, message.epoch)
        if request_id in self._scheduler.sequences or request_id in self._hosted:
            reason = "this instance has the request already"
        hosted = Hosted(sequence=sequence_from(message.state), front=message.state.front, epoch=message.epoch)
        if reason is None:
            reason = self._add(hosted.sequence)
        if reason is not None:
            self._tell(front, DispatchRefused(request_id=request_id, epoch=message.epoch, reason=reason))
            return
        hosted.num_reported = hosted.sequence.num_output_tokens
        self._hosted[request_id] = hosted
        if message.grant is not None:
            self._outbound.expect(hosted, message.grant)

    def _add(self, sequence: Sequence) -> str | None:
        """Why the scheduler cannot take it, if it cannot."""
        try:
            self._scheduler.add(sequence)
        except ValueError as error:
            return str(error)
        return None

    def _on_stop(self, message: Stop) -> None:
        self._fences.raise_to(message.request_id, message.epoch)
        self._inbound.cancel(message.request_id, message.epoch)
        hosted = self._hosted.get(message.request_id)
        if hosted is not None and hosted.epoch <= message.epoch:
            self._end(hosted)

    def on_front_lost(self, front: str) -> None:
        self._dispatches_seen.pop(front, None)
        for hosted in [hosted for hosted in self._hosted.values() if hosted.front == front]:
            self._end(hosted)

    def _end(self, hosted: Hosted) -> None:
        self._outbound.on_request_ended(hosted)
        self._let_go(hosted)

    def _let_go(self, hosted: Hosted) -> None:
        """Of exactly this life of the request: its id may be another's by now."""
        if self._scheduler.sequences.get(hosted.request_id) is hosted.sequence:
            self._scheduler.remove(hosted.request_id, SequenceStatus.FINISHED_ABORTED)
        self._forget(hosted)

    def _forget(self, hosted: Hosted) -> None:
        if self._hosted.get(hosted.request_id) is hosted:
            del self._hosted[hosted.request_id]

    # What peers and links say

    def on_source_message(self, source: Holder, message: SourceMessage, now_s: float) -> None:
        if isinstance(message, Renew):
            self._inbound.renew(source, now_s)
        elif reason := self._fences.refuses(message.request_id, message.epoch):
            refused = Refused(request_id=message.request_id, epoch=message.epoch, reason=reason)
            self.effects.append(ToSource(source, refused))
        else:
            hosted = self._hosted.get(message.request_id)
            holds = hosted is not None and hosted.epoch == message.epoch
            self._inbound.on_source_message(source, message, holds, now_s)

    def on_source_lost(self, source: Holder) -> None:
        self._inbound.on_source_lost(source)

    def on_receiver_message(self, receiver: Holder, message: ReceiverMessage, now_s: float) -> None:
        self._outbound.on_receiver_message(receiver, message, now_s)

    def on_receiver_lost(self, receiver: Holder) -> None:
        self._outbound.on_receiver_lost(receiver)

    def on_transfer_ended(self, transfer: BlockTransfer, failure: str | None = None) -> None:
        self._outbound.on_transfer_ended(transfer, failure)

    def on_arrived(self, reservation: int, first_block: int, num_blocks: int, checksums: tuple[int, ...]) -> None:
        self._inbound.on_arrived(reservation, first_block, num_blocks, checksums)

    def on_bad(self, reservation: int, reason: str) -> None:
        self._inbound.on_bad(reservation, reason)

    def on_quiet(self, reservation: int) -> None:
        self._inbound.on_quiet(reservation)

    def _activate(self, sequence: Sequence, baton: Pass) -> None:
        restore(sequence, baton.state)
        sequence.num_computed_tokens = baton.num_computed_tokens
        self._scheduler.activate(sequence.request_id)
        hosted = Hosted(sequence=sequence, front=baton.state.front, epoch=baton.epoch, activation_acknowledged=False)
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
            self._outbound.on_request_ended(hosted)
        self._report(expired)
        for hosted in self._hosted.values():
            if not hosted.activation_acknowledged:
                self._announce(hosted)

    def plan(self, now_s: float) -> SchedulerOutput | None:
        """What the next step computes, if there is anything; room elsewhere is asked for before it is computed."""
        self._inbound.admit_queued()
        if not self._scheduler.has_work:
            return None
        output = self._scheduler.schedule()
        self._outbound.on_scheduled(output, now_s)
        return output

    def compute(self, output: SchedulerOutput, now_s: float) -> None:
        """The step itself, and what follows from it."""
        sampled = self._engine.runner.run(output) if output.scheduled else []
        self._after(self._scheduler.update(output, sampled), now_s)

    def _after(self, result: StepResult, now_s: float) -> None:
        for sealed in result.sealed:
            self._checksums.seal(sealed.block_ids)
            hosted = self._hosted.get(sealed.sequence.request_id)
            if hosted is not None and not hosted.sequence.is_finished:
                self._outbound.on_sealed(hosted, now_s)
        stepped = [self._hosted[sequence.request_id] for sequence, _ in result.tokens]
        self._report(stepped)
        for hosted in stepped:
            if hosted.sequence.is_finished:
                self._outbound.on_request_ended(hosted)
            elif hosted.is_passing:
                self._outbound.on_first_token(hosted, now_s)

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
            num_sequences=len(self._hosted) + len(self._inbound),
            num_blocks=blocks.num_blocks,
            num_free_blocks=blocks.num_free_blocks,
            num_reserved_blocks=scheduler.num_reserved_blocks,
            num_leaked_blocks=scheduler.num_leaked_blocks,
            num_waiting_tokens=scheduler.num_waiting_tokens,
        )

    def num_dispatches_seen(self, front: str) -> int:
        return self._dispatches_seen.get(front, 0)
