"""The side that takes the request over: mints a reservation, fills it, and activates when blocks and baton are there.

    QUEUED --room--> RESERVED --Pass--> PASSED --last block--> ACTIVE
       |                |  (or the last block first, then Pass)
       +----------------+------------------+--cancel, stop, lease over, peer lost, bad block--> CLOSING --> GONE

CLOSING waits until nothing is posted into the blocks any more (law 9); GONE: they are free again. A reservation is used
once: what comes for it later is refused, so the source knows that it may run the request itself.
"""

from dataclasses import dataclass
from enum import Enum, auto

from cluster.handover.protocol.machine import Machine
from cluster.messages import Holder, Pass, PassTaken, ReceiverMessage, Refused, Reserve, Reserved


class ReceiverState(Enum):
    QUEUED = auto()
    RESERVED = auto()
    PASSED = auto()
    ACTIVE = auto()
    CLOSING = auto()
    GONE = auto()


_TABLE = {
    ReceiverState.QUEUED: frozenset({ReceiverState.RESERVED, ReceiverState.GONE}),
    ReceiverState.RESERVED: frozenset({ReceiverState.PASSED, ReceiverState.CLOSING}),
    ReceiverState.PASSED: frozenset({ReceiverState.ACTIVE, ReceiverState.CLOSING}),
    ReceiverState.ACTIVE: frozenset(),
    ReceiverState.CLOSING: frozenset({ReceiverState.GONE}),
    ReceiverState.GONE: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """Tell the source."""

    message: ReceiverMessage


@dataclass(frozen=True, slots=True)
class Activate:
    """Blocks and baton are here: the sequence runs in this instance from now on."""

    baton: Pass


@dataclass(frozen=True, slots=True)
class CloseSlots:
    """Accept nothing more for this reservation, and say (`on_quiet`) when nothing is posted into its blocks."""

    reservation: int


@dataclass(frozen=True, slots=True)
class TellLedger:
    """A baton that had been passed was refused: the ledger must hear of it even if the source is gone."""

    front: str
    reason: str


@dataclass(frozen=True, slots=True)
class FreeBlocks:
    """The reserved blocks may be used again."""


ReceiverInstruction = Answer | Activate | CloseSlots | TellLedger | FreeBlocks


class HandoverReceiver(Machine[ReceiverState]):
    """One reservation, seen from the receiver. Methods are events; each returns what is to be done."""

    def __init__(self, source: Holder, reserve: Reserve) -> None:
        super().__init__(reserve.request_id, ReceiverState.QUEUED, _TABLE)
        self.source = source
        self.reserve = reserve
        self.reservation: int | None = None
        self._num_blocks_here = 0
        self._baton: Pass | None = None

    def on_room(self, reservation: int, num_cached_blocks: int) -> list[ReceiverInstruction]:
        self.transition(ReceiverState.RESERVED)
        self.reservation = reservation
        self._num_blocks_here = num_cached_blocks
        return [
            Answer(
                Reserved(
                    request_id=self.request_id,
                    epoch=self.reserve.epoch,
                    reservation=reservation,
                    num_cached_blocks=num_cached_blocks,
                )
            )
        ]

    def on_arrived(self, first_block: int, num_blocks: int) -> list[ReceiverInstruction]:
        """Blocks arrived and were checked. A link delivers in order, so there are no gaps."""
        if self.state not in (ReceiverState.RESERVED, ReceiverState.PASSED):
            return []
        if first_block != self._num_blocks_here:
            return self.on_failed(f"block {first_block} arrived where {self._num_blocks_here} was next")
        self._num_blocks_here += num_blocks
        return self._activate_when_whole()

    def on_pass(self, message: Pass) -> list[ReceiverInstruction]:
        if self.state is ReceiverState.PASSED:
            return []  # a repetition; the answer comes when the blocks are here
        if self.state is not ReceiverState.RESERVED or message.reservation != self.reservation:
            return [self._refusal("not this reservation")]
        self.transition(ReceiverState.PASSED)
        self._baton = message
        return self._activate_when_whole()

    def _activate_when_whole(self) -> list[ReceiverInstruction]:
        if self._baton is None or self._num_blocks_here < self._baton.num_blocks:
            return []
        assert self.reservation is not None
        self.transition(ReceiverState.ACTIVE)
        taken = PassTaken(request_id=self.request_id, epoch=self.reserve.epoch)
        return [CloseSlots(self.reservation), Activate(self._baton), Answer(taken)]

    def on_failed(self, reason: str) -> list[ReceiverInstruction]:
        """A bad block, a lost source, an expired lease: the reservation is destroyed and whoever asks is told so."""
        if self.state is ReceiverState.QUEUED:
            return [self._refusal(reason), *self._vanish()]
        if self.state not in (ReceiverState.RESERVED, ReceiverState.PASSED):
            return []
        told: list[ReceiverInstruction] = [self._refusal(reason)]
        if self._baton is not None:
            told.append(TellLedger(self._baton.state.front, reason))
        return [*told, *self._close()]

    def on_cancelled(self) -> list[ReceiverInstruction]:
        """The source or the ledger takes it back. A source that had passed the baton waits for the refusal."""
        if self.state is ReceiverState.QUEUED:
            return self._vanish()
        if self.state in (ReceiverState.RESERVED, ReceiverState.PASSED):
            return [self._refusal("cancelled"), *self._close()]
        return []

    def on_quiet(self) -> list[ReceiverInstruction]:
        if self.state is not ReceiverState.CLOSING:
            return []
        return self._vanish()

    def _refusal(self, reason: str) -> Answer:
        return Answer(Refused(request_id=self.request_id, epoch=self.reserve.epoch, reason=reason))

    def _close(self) -> list[ReceiverInstruction]:
        assert self.reservation is not None
        self.transition(ReceiverState.CLOSING)
        return [CloseSlots(self.reservation)]

    def _vanish(self) -> list[ReceiverInstruction]:
        had_blocks = self.reservation is not None
        self.transition(ReceiverState.GONE)
        return [FreeBlocks()] if had_blocks else []
