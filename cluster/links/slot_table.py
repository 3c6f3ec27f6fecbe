"""Where blocks from elsewhere may land: the receiver's half of the rendezvous, and the quarantine of law 9."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

from cluster.messages import Epoch, Holder

EMPTY, POSTED, ARRIVED = b"epa"  # a byte per block


class Refusal(Enum):
    """Why an offer is not posted. Nothing was touched."""

    UNKNOWN_RESERVATION = "the reservation does not exist, or no longer"
    WRONG_SOURCE = "the reservation is for another source"
    WRONG_EPOCH = "the reservation belongs to another epoch"
    OUT_OF_RANGE = "blocks outside of the reservation"
    NOT_EMPTY = "blocks that are posted or have arrived already"


@dataclass(slots=True)
class _Reservation:
    source: Holder
    epoch: Epoch
    block_ids: tuple[int, ...]
    first_block: int
    closed: bool = False
    parts: dict[int, bytearray] = field(default_factory=dict)

    @property
    def is_quiet(self) -> bool:
        return not any(POSTED in states for states in self.parts.values())

    def states(self, part: int) -> bytearray:
        return self.parts.setdefault(part, bytearray([EMPTY]) * len(self.block_ids))

    def has(self, part: int, start: int, count: int, state: int) -> bool:
        """Whether all of them are in this state."""
        return self.states(part).count(state, start, start + count) == count

    def set(self, part: int, start: int, count: int, state: int) -> None:
        self.states(part)[start : start + count] = bytes([state]) * count


class Arrival(Enum):
    UNWANTED = auto()
    """The reservation was closed meanwhile."""

    PARTLY = auto()
    WHOLE = auto()


class SlotTable:
    """Thread-safe. An engine opens and closes reservations; link threads post, complete and abandon blocks of them.

    A block is EMPTY -> POSTED -> ARRIVED, or back to EMPTY when the operation ended badly; each part of it by itself,
    where several ranks send it. A reservation that is closed
    while something is posted takes no more offers and stays until that operation is over: then `on_quiet(reservation)`
    is called, from the link's thread, and its blocks may be used again.
    """

    def __init__(self, on_quiet: Callable[[int], None]) -> None:
        self._on_quiet = on_quiet
        self._lock = threading.Lock()
        self._reservations: dict[int, _Reservation] = {}

    def open(self, reservation: int, source: Holder, epoch: Epoch, block_ids: Iterable[int], first_block: int) -> None:
        """Blocks [first_block, first_block + len(block_ids)) of the sequence may land in these, from this source."""
        with self._lock:
            if reservation in self._reservations:
                raise ValueError(f"reservation {reservation} is open already")
            self._reservations[reservation] = _Reservation(source, epoch, tuple(block_ids), first_block)

    def post(
        self, reservation: int, source: Holder, epoch: Epoch, first_block: int, count: int, part: int = 0
    ) -> tuple[int, ...] | Refusal:
        """The blocks to write to, quarantined until `complete` or `abandon`."""
        with self._lock:
            entry = self._reservations.get(reservation)
            if entry is None or entry.closed:
                return Refusal.UNKNOWN_RESERVATION
            if entry.source != source:
                return Refusal.WRONG_SOURCE
            if entry.epoch != epoch:
                return Refusal.WRONG_EPOCH
            start = first_block - entry.first_block
            if start < 0 or count < 1 or start + count > len(entry.block_ids):
                return Refusal.OUT_OF_RANGE
            if not entry.has(part, start, count, EMPTY):
                return Refusal.NOT_EMPTY
            entry.set(part, start, count, POSTED)
            return entry.block_ids[start : start + count]

    def complete(self, reservation: int, first_block: int, count: int) -> bool:
        """Posted blocks are there and checked. False: the reservation was closed meanwhile, nobody wants them."""
        return self.complete_part(reservation, first_block, count, 0, 1) is Arrival.WHOLE

    def complete_part(self, reservation: int, first_block: int, count: int, part: int, num_parts: int) -> Arrival:
        """As `complete`. WHOLE is told once: with the last part of these blocks."""
        return self._end(reservation, first_block, count, part, ARRIVED, num_parts)

    def abandon(self, reservation: int, first_block: int, count: int, part: int = 0) -> bool:
        """The operation on posted blocks is over and failed. False: the reservation was closed meanwhile."""
        return self._end(reservation, first_block, count, part, EMPTY, 1) is not Arrival.UNWANTED

    def close(self, reservation: int) -> bool:
        """True: nothing is posted (any more), its blocks may be used again. False: `on_quiet` will say so."""
        with self._lock:
            if (entry := self._reservations.get(reservation)) is None:
                return True
            entry.closed = True
            if quiet := entry.is_quiet:
                del self._reservations[reservation]
            return quiet

    @property
    def num_reservations(self) -> int:
        """Open ones, and closed ones that are not quiet yet."""
        with self._lock:
            return len(self._reservations)

    def check_integrity(self) -> None:
        """A closed reservation is here only while something of it is posted, and no block belongs to two."""
        with self._lock:
            entries = self._reservations.values()
            assert not any(entry.closed and entry.is_quiet for entry in entries)
            block_ids = [block_id for entry in entries for block_id in entry.block_ids]
            assert len(block_ids) == len(set(block_ids))

    def _end(self, reservation: int, first_block: int, count: int, part: int, state: int, num_parts: int) -> Arrival:
        with self._lock:
            entry = self._reservations[reservation]
            start = first_block - entry.first_block
            assert entry.has(part, start, count, POSTED)
            entry.set(part, start, count, state)
            if not entry.closed:
                is_whole = all(entry.has(each, start, count, ARRIVED) for each in range(num_parts))
                return Arrival.WHOLE if is_whole else Arrival.PARTLY
            if quiet := entry.is_quiet:
                del self._reservations[reservation]
        if quiet:
            self._on_quiet(reservation)
        return Arrival.UNWANTED
