"""All reservations in one instance: who asked, which blocks wait for what, and whose lease is over."""

from collections.abc import Callable
from dataclasses import dataclass

from cluster.engine.sampling_params import SamplingParams
from cluster.engine.scheduler import Scheduler
from cluster.engine.sequence import Sequence, SequenceStatus
from cluster.handover.protocol.receiver import (
    Activate,
    Answer,
    CloseSlots,
    FreeBlocks,
    HandoverReceiver,
    ReceiverInstruction,
    ReceiverState,
    TellLedger,
)
from cluster.instance.effects import BlockChecksums, Effect, Slots, ToFront, ToSource
from cluster.messages import Cancel, Epoch, GrantRefused, Holder, Pass, PassTaken, Refused, Reserve

_Key = tuple[str, Epoch]


@dataclass(slots=True, eq=False)
class _Reservation:
    """`sequence` has the blocks; none before there is room, and none ever for a request that comes without KV."""

    receiver: HandoverReceiver
    sequence: Sequence | None = None

    @property
    def reserve(self) -> Reserve:
        return self.receiver.reserve

    @property
    def has_blocks(self) -> bool:
        return self.sequence is not None


class Inbound:
    """Drives one `HandoverReceiver` per reservation.

    `activate(sequence, baton)` is called when one is whole; the sequence is None when it came without KV.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        slots: Slots,
        checksums: BlockChecksums,
        emit: Callable[[Effect], None],
        activate: Callable[[Sequence | None, Pass], None],
    ) -> None:
        self._scheduler = scheduler
        self._blocks = scheduler.block_manager
        self._slots = slots
        self._checksums = checksums
        self._emit = emit
        self._activate = activate
        self._all: dict[_Key, _Reservation] = {}
        self._by_number: dict[int, _Key] = {}
        self._last_heard_s: dict[Holder, float] = {}
        self._num_reservations = 0

    def __len__(self) -> int:
        return len(self._all)

    @property
    def has_queued(self) -> bool:
        """Whether any of them waits for blocks."""
        return any(it.receiver.state is ReceiverState.QUEUED for it in self._all.values())

    def knows(self, request_id: str) -> bool:
        """Whether it is being received, or what was reserved for it is not free yet."""
        return any(key[0] == request_id for key in self._all)

    def renew(self, source: Holder, now_s: float) -> None:
        self._last_heard_s[source] = now_s

    def on_source_message(self, source: Holder, message: Reserve | Pass | Cancel, holds: bool, now_s: float) -> None:
        """`holds`: whether this very request and epoch runs, or has run, here already."""
        self.renew(source, now_s)
        match message:
            case Reserve():
                self._on_reserve(source, message, holds)
            case Pass():
                self._on_pass(source, message, holds)
            case Cancel():
                self._on_cancel(source, message, holds)

    def _on_reserve(self, source: Holder, message: Reserve, holds: bool) -> None:
        key = (message.request_id, message.epoch)
        if holds or key in self._all:
            return  # said twice; to refuse it would be taken for a refusal of the baton that was passed since
        if message.request_id in self._scheduler.sequences or self.knows(message.request_id):
            self._refuse(source, message.request_id, message.epoch, "this instance has the request already")
        elif message.num_tokens and not self._scheduler.can_ever_hold(message.num_tokens):
            self._refuse(source, message.request_id, message.epoch, f"no room for {message.num_tokens} tokens, ever")
        else:
            receiver = HandoverReceiver(source, message)
            self._all[key] = _Reservation(receiver)
            self.admit_queued()
            if receiver.state is ReceiverState.QUEUED and not message.may_wait:
                self._carry_out(key, receiver.on_failed(f"no room for {message.num_tokens} tokens now"))

    def admit_queued(self) -> None:
        """Gives blocks to those who wait for them, in the order they came, after those that were preempted here."""
        is_shut = self._scheduler.has_preempted
        for key, reservation in list(self._all.items()):
            if reservation.receiver.state is ReceiverState.QUEUED and not (is_shut and reservation.reserve.num_tokens):
                is_shut = not self._admit(key, reservation) or is_shut

    def _admit(self, key: _Key, reservation: _Reservation) -> bool:
        num_cached = self._reserve_blocks(reservation) if reservation.reserve.num_tokens else 0
        if num_cached is None:
            return False
        self._num_reservations += 1
        number = self._num_reservations
        self._by_number[number] = key
        if reservation.sequence is not None:
            missing = tuple(reservation.sequence.block_table[num_cached:])
            source, epoch = reservation.receiver.source, reservation.reserve.epoch
            self._slots.open(number, source, epoch, missing, num_cached)
        self._carry_out(key, reservation.receiver.on_room(number, num_cached))
        return True

    def _reserve_blocks(self, reservation: _Reservation) -> int | None:
        """How many leading blocks are here already; None: there is no room now."""
        reserve = reservation.reserve
        sequence = Sequence(
            request_id=reserve.request_id,
            prompt_token_ids=(),
            sampling_params=SamplingParams(),
            arrival_time_s=0.0,
        )
        num_cached = self._scheduler.reserve(sequence, reserve.num_tokens, list(reserve.block_hashes))
        if num_cached is not None:
            reservation.sequence = sequence
        return num_cached

    def _on_pass(self, source: Holder, message: Pass, holds: bool) -> None:
        key = (message.request_id, message.epoch)
        reservation = self._all.get(key)
        if reservation is None or reservation.receiver.source != source:
            self._answer_late(source, message, holds)
        elif not self._fits(reservation, message):
            self._carry_out(key, reservation.receiver.on_failed("baton and reservation do not fit"))
        else:
            self._carry_out(key, reservation.receiver.on_pass(message))

    def _fits(self, reservation: _Reservation, message: Pass) -> bool:
        """Whether tokens and blocks agree with each other and with the room that was made."""
        num_computed = message.num_computed_tokens
        num_tokens = len(message.state.prompt_token_ids) + len(message.state.output_token_ids)
        if not self._scheduler.can_ever_hold(num_tokens) or num_tokens == 0:
            return False
        if not reservation.reserve.num_tokens:
            return num_computed == message.num_blocks == 0
        sequence = reservation.sequence
        num_cached, num_reserved = (len(sequence.block_hashes), len(sequence.block_table)) if sequence else (0, 0)
        return (
            max(1, num_cached * self._blocks.block_size) <= num_computed < num_tokens
            and message.num_blocks == self._blocks.num_blocks_for(num_computed) <= num_reserved
        )

    def _on_cancel(self, source: Holder, message: Cancel, holds: bool) -> None:
        key = (message.request_id, message.epoch)
        reservation = self._all.get(key)
        if reservation is None or reservation.receiver.source != source:
            self._answer_late(source, message, holds)
        else:
            self._carry_out(key, reservation.receiver.on_cancelled())

    def _answer_late(self, source: Holder, message: Pass | Cancel, holds: bool) -> None:
        if holds:
            self._emit(ToSource(source, PassTaken(request_id=message.request_id, epoch=message.epoch)))
        else:
            self._refuse(source, message.request_id, message.epoch, "no such reservation")

    def _refuse(self, source: Holder, request_id: str, epoch: Epoch, reason: str) -> None:
        self._emit(ToSource(source, Refused(request_id=request_id, epoch=epoch, reason=reason)))

    def cancel(self, request_id: str, up_to: Epoch) -> None:
        """The ledger destroys the reservations of this request up to that epoch."""
        for key in [key for key in self._all if key[0] == request_id and key[1] <= up_to]:
            self._carry_out(key, self._all[key].receiver.on_cancelled())

    def end_terms_before(self, term: int) -> None:
        """What has not been activated by now, with a grant of an earlier term, never will be."""
        for key, reservation in list(self._all.items()):
            if key[1].term < term:
                self._carry_out(key, reservation.receiver.on_failed(f"term {term} has begun"))

    def on_arrived(self, number: int, first_block: int, num_blocks: int, checksums: tuple[int, ...]) -> None:
        key = self._by_number.get(number)
        if key is None:
            return
        sequence = self._all[key].sequence
        assert sequence is not None, "blocks came for a reservation without slots"
        self._checksums.put(sequence.block_table[first_block : first_block + num_blocks], checksums)
        self._carry_out(key, self._all[key].receiver.on_arrived(first_block, num_blocks))

    def on_bad(self, number: int, reason: str) -> None:
        if key := self._by_number.get(number):
            self._carry_out(key, self._all[key].receiver.on_failed(reason))

    def on_quiet(self, number: int) -> None:
        if key := self._by_number.get(number):
            self._carry_out(key, self._all[key].receiver.on_quiet())

    def on_source_lost(self, source: Holder) -> None:
        for key, reservation in list(self._all.items()):
            if reservation.receiver.source == source:
                self._carry_out(key, reservation.receiver.on_failed("source lost"))
        self._last_heard_s.pop(source, None)

    def expire_leases(self, now_s: float) -> None:
        for key, reservation in list(self._all.items()):
            if now_s - self._last_heard_s.get(reservation.receiver.source, now_s) > reservation.reserve.lease_s:
                self._carry_out(key, reservation.receiver.on_failed("lease expired"))

    def _carry_out(self, key: _Key, instructions: list[ReceiverInstruction]) -> None:
        reservation = self._all[key]
        receiver = reservation.receiver
        for instruction in instructions:
            match instruction:
                case Answer(message):
                    self._emit(ToSource(receiver.source, message))
                case CloseSlots(number):
                    self._close_slots(key, reservation, number)
                case Activate(baton):
                    self._forget(key)
                    self._activate(reservation.sequence, baton)
                case FreeBlocks():
                    if reservation.has_blocks:
                        self._scheduler.remove(receiver.request_id, SequenceStatus.FINISHED_ABORTED)
                case TellLedger(front, reason):
                    refused = GrantRefused(request_id=receiver.request_id, epoch=receiver.reserve.epoch, reason=reason)
                    self._emit(ToFront(front, refused))
        if receiver.state is ReceiverState.GONE and key in self._all:
            self._forget(key)

    def _close_slots(self, key: _Key, reservation: _Reservation, number: int) -> None:
        is_quiet = not reservation.has_blocks or self._slots.close(number)
        if is_quiet and reservation.receiver.state is ReceiverState.CLOSING:
            self._carry_out(key, reservation.receiver.on_quiet())

    def _forget(self, key: _Key) -> None:
        receiver = self._all.pop(key).receiver
        if receiver.reservation is not None:
            del self._by_number[receiver.reservation]
