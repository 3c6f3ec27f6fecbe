"""All reservations in one instance: who asked, which blocks wait for what, and whose lease is over."""

from collections.abc import Callable

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


class Inbound:
    """Drives one `HandoverReceiver` per reservation. `activate(sequence, baton)` is called when one is whole."""

    def __init__(
        self,
        scheduler: Scheduler,
        slots: Slots,
        checksums: BlockChecksums,
        emit: Callable[[Effect], None],
        activate: Callable[[Sequence, Pass], None],
    ) -> None:
        self._scheduler = scheduler
        self._blocks = scheduler.block_manager
        self._slots = slots
        self._checksums = checksums
        self._emit = emit
        self._activate = activate
        self._receivers: dict[_Key, HandoverReceiver] = {}
        self._sequences: dict[_Key, Sequence] = {}
        self._by_reservation: dict[int, _Key] = {}
        self._last_heard_s: dict[Holder, float] = {}
        self._num_reservations = 0

    def __len__(self) -> int:
        return len(self._receivers)

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
        if key in self._receivers:
            return
        if holds or self._knows(message.request_id):
            self._refuse(source, message.request_id, message.epoch, "this instance has the request already")
        elif not self._scheduler.can_ever_hold(message.num_tokens):
            self._refuse(source, message.request_id, message.epoch, f"no room for {message.num_tokens} tokens, ever")
        else:
            self._receivers[key] = HandoverReceiver(source, message)
            self.admit_queued()

    def _knows(self, request_id: str) -> bool:
        """Runs here, or is being received for another grant: an id is in one place at a time."""
        return request_id in self._scheduler.sequences or any(key[0] == request_id for key in self._receivers)

    def admit_queued(self) -> None:
        """Gives blocks to those who wait for them, in the order they came, after those that were preempted here."""
        if self._scheduler.has_preempted:
            return
        for key, receiver in list(self._receivers.items()):
            if receiver.state is ReceiverState.QUEUED and not self._admit(key, receiver):
                return

    def _admit(self, key: _Key, receiver: HandoverReceiver) -> bool:
        reserve = receiver.reserve
        sequence = Sequence(
            request_id=reserve.request_id,
            prompt_token_ids=(),
            sampling_params=SamplingParams(),
            arrival_time_s=0.0,
        )
        num_cached = self._scheduler.reserve(sequence, reserve.num_tokens, list(reserve.block_hashes))
        if num_cached is None:
            return False
        self._num_reservations += 1
        reservation = self._num_reservations
        self._sequences[key] = sequence
        self._by_reservation[reservation] = key
        self._slots.open(reservation, reserve.epoch, tuple(sequence.block_table[num_cached:]), num_cached)
        self._carry_out(key, receiver.on_room(reservation, num_cached))
        return True

    def _on_pass(self, source: Holder, message: Pass, holds: bool) -> None:
        key = (message.request_id, message.epoch)
        receiver = self._receivers.get(key)
        if receiver is None:
            self._answer_late(source, message, holds)
        elif self._is_sound(key, message):
            self._carry_out(key, receiver.on_pass(message))
        else:
            self._carry_out(key, receiver.on_failed("tokens, KV and reserved blocks do not fit together"))

    def _is_sound(self, key: _Key, message: Pass) -> bool:
        """Whether what the baton says can be run in the blocks that were reserved for it."""
        state, num_computed = message.state, message.num_computed_tokens
        num_tokens = len(state.prompt_token_ids) + len(state.output_token_ids)
        sequence = self._sequences.get(key)
        num_cached, num_reserved = (len(sequence.block_hashes), len(sequence.block_table)) if sequence else (0, 0)
        return (
            max(1, num_cached * self._blocks.block_size) <= num_computed < num_tokens
            and self._scheduler.can_ever_hold(num_tokens)
            and message.num_blocks == self._blocks.num_blocks_for(num_computed) <= num_reserved
        )

    def _on_cancel(self, source: Holder, message: Cancel, holds: bool) -> None:
        if not self.cancel(message.request_id, message.epoch):
            self._answer_late(source, message, holds)

    def _answer_late(self, source: Holder, message: Pass | Cancel, holds: bool) -> None:
        if holds:
            self._emit(ToSource(source, PassTaken(request_id=message.request_id, epoch=message.epoch)))
        else:
            self._refuse(source, message.request_id, message.epoch, "no such reservation")

    def _refuse(self, source: Holder, request_id: str, epoch: Epoch, reason: str) -> None:
        self._emit(ToSource(source, Refused(request_id=request_id, epoch=epoch, reason=reason)))

    def cancel(self, request_id: str, up_to: Epoch) -> bool:
        """Destroys the reservations of this request up to that epoch; whether there were any."""
        keys = [key for key in self._receivers if key[0] == request_id and key[1] <= up_to]
        for key in keys:
            self._carry_out(key, self._receivers[key].on_cancelled())
        return bool(keys)

    def on_arrived(self, reservation: int, first_block: int, num_blocks: int, checksums: tuple[int, ...]) -> None:
        key = self._by_reservation.get(reservation)
        if key is None:
            return
        table = self._sequences[key].block_table
        self._checksums.put(table[first_block : first_block + num_blocks], checksums)
        self._carry_out(key, self._receivers[key].on_arrived(first_block, num_blocks))

    def on_bad(self, reservation: int, reason: str) -> None:
        if key := self._by_reservation.get(reservation):
            self._carry_out(key, self._receivers[key].on_failed(reason))

    def on_quiet(self, reservation: int) -> None:
        if key := self._by_reservation.get(reservation):
            self._carry_out(key, self._receivers[key].on_quiet())

    def on_source_lost(self, source: Holder) -> None:
        for key, receiver in list(self._receivers.items()):
            if receiver.source == source:
                self._carry_out(key, receiver.on_failed("source lost"))
        self._last_heard_s.pop(source, None)

    def expire_leases(self, now_s: float) -> None:
        for key, receiver in list(self._receivers.items()):
            if now_s - self._last_heard_s.get(receiver.source, now_s) > receiver.reserve.lease_s:
                self._carry_out(key, receiver.on_failed("lease expired"))

    def _carry_out(self, key: _Key, instructions: list[ReceiverInstruction]) -> None:
        receiver = self._receivers[key]
        for instruction in instructions:
            match instruction:
                case Answer(message):
                    self._emit(ToSource(receiver.source, message))
                case CloseSlots(reservation):
                    self._close_slots(key, receiver, reservation)
                case Activate(baton):
                    self._forget(key)
                    self._activate(self._sequences.pop(key), baton)
                case FreeBlocks():
                    self._scheduler.remove(receiver.request_id, SequenceStatus.FINISHED_ABORTED)
                    del self._sequences[key]
                case TellLedger(front, reason):
                    refused = GrantRefused(request_id=receiver.request_id, epoch=receiver.reserve.epoch, reason=reason)
                    self._emit(ToFront(front, refused))
        if receiver.state is ReceiverState.GONE and key in self._receivers:
            self._forget(key)

    def _close_slots(self, key: _Key, receiver: HandoverReceiver, reservation: int) -> None:
        if self._slots.close(reservation) and receiver.state is ReceiverState.CLOSING:
            self._carry_out(key, receiver.on_quiet())

    def _forget(self, key: _Key) -> None:
        receiver = self._receivers.pop(key)
        if receiver.reservation is not None:
            del self._by_reservation[receiver.reservation]
