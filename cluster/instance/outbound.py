"""All handovers that leave one instance: carries out what each `HandoverSource` says."""

from collections.abc import Callable

from cluster.engine.block_hash import hash_blocks
from cluster.engine.block_manager import BlockManager
from cluster.engine.scheduler import Scheduler
from cluster.engine.scheduler_output import SchedulerOutput
from cluster.handover.protocol.source import Doubt, HandoverSource, Release, RunOn, Send, SourceInstruction, Transfer
from cluster.instance.config import HandoverConfig
from cluster.instance.effects import BlockChecksums, Effect, StartTransfer, ToFront, ToReceiver
from cluster.instance.hosted import Hosted
from cluster.messages import BlockTransfer, Grant, GrantRefused, Holder, ReceiverMessage, Refused, Reserved

# A Pass that nobody answers is said again: often enough that a lost one costs little, rarely enough to be no traffic.
_REPEAT_PASS_S = 0.5


class Outbound:
    def __init__(
        self,
        config: HandoverConfig,
        scheduler: Scheduler,
        checksums: BlockChecksums,
        emit: Callable[[Effect], None],
        release: Callable[[Hosted], None],
    ) -> None:
        self._config = config
        self._scheduler = scheduler
        self._blocks: BlockManager = scheduler.block_manager
        self._checksums = checksums
        self._emit = emit
        self._release = release
        self._expected: dict[str, tuple[Hosted, Grant]] = {}
        self._open: dict[str, Hosted] = {}

    def expect(self, hosted: Hosted, grant: Grant) -> None:
        """To be handed over there, once it has blocks here."""
        self._expected[hosted.request_id] = (hosted, grant)

    def on_scheduled(self, output: SchedulerOutput, now_s: float) -> None:
        """Asks for room elsewhere as soon as a sequence has room here, and no sooner.

        Two instances that each wait with full hands for room in the other would wait for ever.
        """
        for sequence in output.preempted:
            if hosted := self._open.get(sequence.request_id):
                self._carry_out(hosted, hosted.open_handover.on_preempted())
        if self._expected:
            for entry in output.scheduled:
                if expected := self._expected.pop(entry.sequence.request_id, None):
                    self._start(*expected, now_s)

    def _start(self, hosted: Hosted, grant: Grant, now_s: float) -> None:
        sequence = hosted.sequence
        hosted.handover = HandoverSource(
            hosted.request_id,
            grant,
            give_up_at_s=now_s + self._config.reserve_timeout_s,
            repeat_s=_REPEAT_PASS_S,
            doubt_after_s=self._config.lease_s,
        )
        self._open[hosted.request_id] = hosted
        hashes = tuple(hash_blocks(sequence.token_ids(0, sequence.num_tokens), self._blocks.block_size))
        self._carry_out(hosted, hosted.handover.start(sequence.num_tokens + 1, hashes, self._config.lease_s))

    def on_sealed(self, hosted: Hosted, now_s: float) -> None:
        if hosted.handover:
            self._carry_out(hosted, hosted.handover.on_sealed(self._num_sealed(hosted), now_s))

    def _num_sealed(self, hosted: Hosted) -> int:
        return hosted.sequence.num_computed_tokens // self._blocks.block_size

    def on_first_token(self, hosted: Hosted, now_s: float) -> None:
        """The prompt is computed and the sequence stands still until it runs elsewhere, or here after all."""
        sequence, handover = hosted.sequence, hosted.open_handover
        self._scheduler.freeze(hosted.request_id)
        num_blocks = -(-sequence.num_computed_tokens // self._blocks.block_size)
        frozen = handover.on_frozen(num_blocks, sequence.num_computed_tokens, hosted.state(), now_s)
        self._carry_out(hosted, frozen)

    def on_receiver_message(self, receiver: Holder, message: ReceiverMessage, now_s: float) -> None:
        hosted = self._open.get(message.request_id)
        if hosted is None:
            return
        handover = hosted.open_handover
        if handover.grant.receiver != receiver or handover.grant.epoch != message.epoch:
            return
        match message:
            case Reserved():
                self._carry_out(hosted, handover.on_reserved(message, self._num_sealed(hosted), now_s))
            case Refused():
                self._carry_out(hosted, handover.on_refused(message))
            case _:
                self._carry_out(hosted, handover.on_pass_taken())

    def on_receiver_lost(self, receiver: Holder) -> None:
        for hosted in list(self._open.values()):
            if hosted.open_handover.grant.receiver == receiver:
                self._carry_out(hosted, hosted.open_handover.on_peer_lost())

    def on_transfer_ended(self, transfer: BlockTransfer, failure: str | None) -> None:
        """Complete, or known dead with a reason: either way no link reads these blocks any more."""
        self._blocks.unpin(transfer.block_ids)
        hosted = self._open.get(transfer.request_id)
        if failure is not None and hosted is not None and hosted.open_handover.grant.epoch == transfer.epoch:
            self._carry_out(hosted, hosted.open_handover.on_transfer_failed(failure))

    def on_grant_closed(self, hosted: Hosted) -> None:
        self._expected.pop(hosted.request_id, None)
        if hosted.handover:
            self._carry_out(hosted, hosted.handover.on_grant_closed())

    def on_request_ended(self, hosted: Hosted) -> None:
        self._expected.pop(hosted.request_id, None)
        if hosted.handover:
            self._carry_out(hosted, hosted.handover.on_request_ended())

    def tick(self, now_s: float) -> None:
        for hosted in list(self._open.values()):
            self._carry_out(hosted, hosted.open_handover.tick(now_s))

    def _carry_out(self, hosted: Hosted, instructions: list[SourceInstruction]) -> None:
        handover = hosted.open_handover
        if not handover.is_open:
            self._open.pop(hosted.request_id, None)
        for instruction in instructions:
            match instruction:
                case Send(message):
                    self._emit(ToReceiver(handover.grant, message))
                case Transfer(reservation, first_block, num_blocks):
                    self._transfer(hosted, handover.grant, reservation, first_block, num_blocks)
                case RunOn(reason):
                    self._run_on(hosted, handover.grant, reason)
                case Doubt(reason):
                    self._tell_ledger(hosted, handover.grant, reason)
                case Release():
                    self._release(hosted)

    def _run_on(self, hosted: Hosted, grant: Grant, reason: str) -> None:
        self._scheduler.thaw(hosted.request_id)
        self._tell_ledger(hosted, grant, reason)

    def _tell_ledger(self, hosted: Hosted, grant: Grant, reason: str) -> None:
        refused = GrantRefused(request_id=hosted.request_id, epoch=grant.epoch, reason=reason)
        self._emit(ToFront(hosted.front, refused))

    def _transfer(self, hosted: Hosted, grant: Grant, reservation: int, first_block: int, num_blocks: int) -> None:
        """Blocks stay pinned until the link says that it is done with them, whoever frees them meanwhile (law 9)."""
        sequence = hosted.sequence
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
