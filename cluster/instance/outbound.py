"""All handovers that leave one instance: carries out what each `HandoverSource` says."""

from collections.abc import Callable, Mapping

from cluster.engine.block_manager import BlockManager
from cluster.engine.scheduler import Scheduler
from cluster.engine.scheduler_output import SchedulerOutput
from cluster.engine.sequence import Sequence
from cluster.handover.protocol.source import (
    Doubt,
    HandoverSource,
    Release,
    RunOn,
    Send,
    SourceInstruction,
    Terms,
    Transfer,
)
from cluster.instance.config import HandoverConfig
from cluster.instance.effects import BlockChecksums, Effect, StartTransfer, ToFront, ToReceiver
from cluster.instance.hosted import Hosted
from cluster.instance.pacer import Pacer, Piece
from cluster.messages import BlockTransfer, Grant, GrantRefused, Holder, ReceiverMessage, Refused, Reserved
from cluster.snapshot import HandoverSnapshot

# A Pass that nobody answers is said again: often enough that a lost one costs little, rarely enough to be no traffic.
_REPEAT_PASS_S = 0.5


class Outbound:
    """`release(hosted)` is called when a request is another instance's from then on."""

    def __init__(
        self,
        config: HandoverConfig,
        record_bytes: int,
        scheduler: Scheduler,
        checksums: BlockChecksums,
        emit: Callable[[Effect], None],
        release: Callable[[Hosted], None],
    ) -> None:
        self._config = config
        self._record_bytes = record_bytes
        self._scheduler = scheduler
        self._blocks: BlockManager = scheduler.block_manager
        self._checksums = checksums
        self._emit = emit
        self._release = release
        self._pacer = Pacer(config.max_bytes_in_flight, config.bytes_per_s, config.piece_bytes)
        self._expected: dict[str, tuple[Hosted, Grant]] = {}
        self._open: dict[str, Hosted] = {}

    def __len__(self) -> int:
        """Those that are under way."""
        return len(self._open)

    def on_links_measured(self, link_speeds: Mapping[str, float]) -> None:
        self._pacer.learned(link_speeds)

    # Beginnings

    def expect(self, hosted: Hosted, grant: Grant) -> None:
        """To be handed over there when its prompt is computed; room is asked for once it has blocks here."""
        self._expected[hosted.request_id] = (hosted, grant)

    def expected_grant(self, hosted: Hosted) -> Grant | None:
        """Of the handover that is under way or to come."""
        if hosted.is_passing:
            return hosted.open_handover.grant
        expected = self._expected.get(hosted.request_id)
        return expected[1] if expected else None

    def on_scheduled(self, output: SchedulerOutput, now_s: float) -> None:
        """Asks for room elsewhere as soon as a sequence has room here, and no sooner.

        Two instances that each wait with full hands for room in the other would wait for ever.
        """
        for sequence in output.preempted:
            if hosted := self._open.get(sequence.request_id):
                self._carry_out(hosted, hosted.open_handover.on_preempted(), now_s)
        if self._expected:
            for entry in output.scheduled:
                if expected := self._expected.pop(entry.sequence.request_id, None):
                    self._start(*expected, now_s)

    def _start(self, hosted: Hosted, grant: Grant, now_s: float) -> None:
        sequence = hosted.sequence
        handover = self._open_handover(hosted, grant, now_s, decodes_on=False)
        hashes = self._hashes(sequence, sequence.num_tokens)
        self._carry_out(hosted, handover.start(sequence.num_tokens + 1, hashes, self._config.lease_s), now_s)

    def hand_over(self, hosted: Hosted, grant: Grant, now_s: float) -> None:
        """A request that runs here is to go on there. It decodes on meanwhile; one that waits just changes queues."""
        sequence = hosted.sequence
        handover = self._open_handover(hosted, grant, now_s, decodes_on=True)
        if sequence.block_table:
            most = sequence.num_prompt_tokens + sequence.sampling_params.max_tokens
            headroom = self._config.headroom_blocks * self._blocks.block_size
            hashes = self._hashes(sequence, sequence.num_tokens - 1)
            num_tokens = max(min(sequence.num_tokens + headroom, most), sequence.num_tokens + 1)
            self._carry_out(hosted, handover.start(num_tokens, hashes, self._config.lease_s), now_s)
        else:
            self._carry_out(hosted, handover.start(0, (), self._config.lease_s), now_s)
            self._freeze(hosted, now_s)

    def _open_handover(self, hosted: Hosted, grant: Grant, now_s: float, *, decodes_on: bool) -> HandoverSource:
        terms = Terms(
            decodes_on=decodes_on,
            give_up_at_s=now_s + self._config.reserve_timeout_s,
            repeat_s=_REPEAT_PASS_S,
            doubt_after_s=self._config.lease_s,
            max_stages=self._config.max_stages,
        )
        hosted.handover = HandoverSource(hosted.request_id, grant, terms)
        self._open[hosted.request_id] = hosted
        return hosted.handover

    def _hashes(self, sequence: Sequence, num_tokens: int) -> tuple[bytes, ...]:
        return tuple(self._blocks.hashes(sequence, num_tokens // self._blocks.block_size))

    # What happens here

    def on_sealed(self, hosted: Hosted, now_s: float) -> None:
        if hosted.is_passing:
            self._carry_out(hosted, hosted.open_handover.on_sealed(self._num_sealed(hosted), now_s), now_s)

    def _num_sealed(self, hosted: Hosted) -> int:
        return hosted.sequence.num_computed_tokens // self._blocks.block_size

    def on_stepped(self, hosted: Hosted, now_s: float) -> None:
        """It has a token more. With the prompt computed it stands still, unless it is to decode on for a while."""
        if hosted.open_handover.decodes_on:
            self._freeze_if_due(hosted, now_s)
        else:
            self._freeze(hosted, now_s)

    def _freeze_if_due(self, hosted: Hosted, now_s: float) -> None:
        sequence, handover = hosted.sequence, hosted.open_handover
        is_decoding = sequence.num_computed_tokens == sequence.num_tokens - 1
        num_blocks = self._blocks.num_blocks_for(sequence.num_computed_tokens)
        if handover.decodes_on and is_decoding and handover.must_freeze(num_blocks, sequence.num_tokens):
            self._freeze(hosted, now_s)

    def _freeze(self, hosted: Hosted, now_s: float) -> None:
        """It stands still until it runs elsewhere, or here after all."""
        sequence, handover = hosted.sequence, hosted.open_handover
        self._scheduler.freeze(hosted.request_id)
        for piece in self._pacer.withdraw(hosted.request_id, handover.grant.epoch):
            self._transfer(hosted, piece.reservation, piece.first_block, piece.num_blocks)
        num_computed = sequence.num_computed_tokens
        num_blocks = self._blocks.num_blocks_for(num_computed)
        frozen = handover.on_frozen(num_blocks, num_computed, hosted.num_reported, hosted.state(), now_s)
        self._carry_out(hosted, frozen, now_s)

    # What others say

    def on_receiver_message(self, receiver: Holder, message: ReceiverMessage, now_s: float) -> bool:
        """Whether it is about a handover that is under way."""
        hosted = self._open.get(message.request_id)
        if hosted is None:
            return False
        handover = hosted.open_handover
        if handover.grant.receiver != receiver or handover.grant.epoch != message.epoch:
            return False
        match message:
            case Reserved():
                self._carry_out(hosted, handover.on_reserved(message, self._num_sealed(hosted), now_s), now_s)
                self._freeze_if_open(hosted, now_s)
            case Refused():
                self._carry_out(hosted, handover.on_refused(message), now_s)
            case _:
                self._carry_out(hosted, handover.on_pass_taken(), now_s)
        return True

    def on_receiver_lost(self, receiver: Holder, now_s: float) -> None:
        for hosted in list(self._open.values()):
            if hosted.open_handover.grant.receiver == receiver:
                self._carry_out(hosted, hosted.open_handover.on_peer_lost(), now_s)

    def on_transfer_ended(self, transfer: BlockTransfer, failure: str | None, now_s: float) -> None:
        """Complete, or known dead with a reason: either way no link reads these blocks any more."""
        self._blocks.unpin(transfer.block_ids)
        self._pacer.ended(transfer.request_id, transfer.epoch, transfer.first_block)
        hosted = self._open.get(transfer.request_id)
        if hosted is not None and hosted.open_handover.grant.epoch == transfer.epoch:
            handover = hosted.open_handover
            if failure is None:
                self._carry_out(hosted, handover.on_transferred(len(transfer.block_ids), now_s), now_s)
                self._freeze_if_open(hosted, now_s)
            else:
                self._carry_out(hosted, handover.on_transfer_failed(failure), now_s)
        self._send_pieces(now_s)

    def _freeze_if_open(self, hosted: Hosted, now_s: float) -> None:
        """In the middle of a step it is too early: there is a token more to come."""
        if hosted.is_passing and not self._scheduler.is_in_flight(hosted.sequence):
            self._freeze_if_due(hosted, now_s)

    def on_grant_closed(self, hosted: Hosted, now_s: float) -> None:
        if expected := self._expected.pop(hosted.request_id, None):
            hosted.outranks = max(hosted.outranks, expected[1].epoch)
        if hosted.is_passing:
            self._carry_out(hosted, hosted.open_handover.on_grant_closed(), now_s)

    def on_request_ended(self, hosted: Hosted, now_s: float) -> None:
        self._expected.pop(hosted.request_id, None)
        if hosted.is_passing:
            self._carry_out(hosted, hosted.open_handover.on_request_ended(), now_s)

    def tick(self, now_s: float) -> None:
        for hosted in list(self._open.values()):
            self._carry_out(hosted, hosted.open_handover.tick(now_s), now_s)
        self._send_pieces(now_s)

    # Carrying out

    def _carry_out(self, hosted: Hosted, instructions: list[SourceInstruction], now_s: float) -> None:
        handover = hosted.handover
        assert handover is not None
        if not handover.is_open and self._open.get(hosted.request_id) is hosted:
            del self._open[hosted.request_id]
            self._pacer.withdraw(hosted.request_id, handover.grant.epoch)
        for instruction in instructions:
            match instruction:
                case Send(message):
                    self._emit(ToReceiver(handover.grant, message))
                case Transfer(reservation, first_block, num_blocks):
                    if handover.decodes_on and handover.holds_baton:
                        self._put_piece(handover, reservation, first_block, num_blocks)
                        self._send_pieces(now_s)
                    else:
                        self._transfer(hosted, reservation, first_block, num_blocks)
                case RunOn(reason, unreachable):
                    self._run_on(hosted, handover.grant, reason, unreachable)
                case Doubt(reason):
                    self._tell_ledger(hosted, handover.grant, reason)
                case Release():
                    self._release(hosted)

    def _run_on(self, hosted: Hosted, grant: Grant, reason: str, unreachable: bool) -> None:
        hosted.outranks = max(hosted.outranks, grant.epoch)
        self._scheduler.thaw(hosted.request_id)
        self._tell_ledger(hosted, grant, reason, unreachable)

    def _tell_ledger(self, hosted: Hosted, grant: Grant, reason: str, unreachable: bool = False) -> None:
        refused = GrantRefused(request_id=hosted.request_id, epoch=grant.epoch, reason=reason, unreachable=unreachable)
        self._emit(ToFront(hosted.front, refused))

    def _put_piece(self, handover: HandoverSource, reservation: int, first_block: int, num_blocks: int) -> None:
        piece = Piece(
            request_id=handover.request_id,
            epoch=handover.grant.epoch,
            receiver=handover.grant.receiver,
            reservation=reservation,
            first_block=first_block,
            num_blocks=num_blocks,
            num_bytes=num_blocks * self._record_bytes,
        )
        self._pacer.put(piece)

    def _send_pieces(self, now_s: float) -> None:
        for piece in self._pacer.take(now_s):
            self._transfer(self._open[piece.request_id], piece.reservation, piece.first_block, piece.num_blocks)

    def _transfer(self, hosted: Hosted, reservation: int, first_block: int, num_blocks: int) -> None:
        """Blocks stay pinned until the link says that it is done with them, whoever frees them meanwhile (law 9)."""
        sequence, grant = hosted.sequence, hosted.open_handover.grant
        block_ids = tuple(sequence.block_table[first_block : first_block + num_blocks])
        self._checksums.seal(
            sequence.block_table[max(first_block, self._num_sealed(hosted)) : first_block + num_blocks]
        )
        self._blocks.pin(block_ids)
        transfer = BlockTransfer(
            request_id=hosted.request_id,
            epoch=grant.epoch,
            reservation=reservation,
            first_block=first_block,
            block_ids=block_ids,
            checksums=self._checksums.get(block_ids),
        )
        self._emit(StartTransfer(grant, transfer))

    # What others may know

    def snapshots(self, source: str) -> tuple[HandoverSnapshot, ...]:
        return tuple(self._snapshot(source, hosted) for hosted in self._open.values())

    def _snapshot(self, source: str, hosted: Hosted) -> HandoverSnapshot:
        handover = hosted.open_handover
        return HandoverSnapshot(
            request_id=hosted.request_id,
            source=source,
            target=handover.grant.receiver.instance,
            state=handover.state.name,
            stage=handover.stage,
            num_blocks_sent=handover.num_sent_blocks,
            num_blocks=self._blocks.num_blocks_for(hosted.sequence.num_computed_tokens),
            num_bytes=handover.num_sent_blocks * self._record_bytes,
        )
