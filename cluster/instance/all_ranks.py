"""The blocks of an instance of several ranks: each rank has a part of every block, and its own links to move it."""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cluster.instance.checksums import KvChecksums
from cluster.instance.link_events import LinkEvents
from cluster.links.outgoing_links import OutgoingLinks
from cluster.links.piece_events import PieceEvents
from cluster.links.slot_table import SlotTable
from cluster.messages import BlockTransfer, Epoch, Holder
from cluster.ranks.far_links import FarLinks

_Arrived = tuple[int, int, int]  # reservation, first_block, count


@dataclass(slots=True)
class _Parts:
    """`checksums` are of rank 0's part."""

    num_left: int
    checksums: tuple[int, ...] = ()


class AllRanks:
    """On rank 0. For the core it is the instance's `Slots` and `BlockChecksums`; links of all ranks tell it what they
    did, and `events` hear of it once all of them have.
    """

    def __init__(self, events: LinkEvents, num_ranks: int) -> None:
        self._events = events
        self._num_ranks = num_ranks
        self._lock = threading.Lock()
        self._arriving: dict[_Arrived, _Parts] = {}
        self._closing: dict[int, int] = {}
        self._sent = PieceEvents(events)
        self.on_sent, self.on_send_failed = self._sent.on_sent, self._sent.on_send_failed
        self.on_bad, self.on_damaged = events.on_bad, events.on_damaged
        self.on_unauthenticated, self.on_malformed = events.on_unauthenticated, events.on_malformed

    def connect(
        self, slots: SlotTable, checksums: KvChecksums, links: OutgoingLinks, others: Sequence[FarLinks]
    ) -> None:
        """The first three are rank 0's."""
        self._slots, self._checksums, self._links, self._others = slots, checksums, links, others

    # For the core

    def seal(self, block_ids: Iterable[int]) -> None:
        block_ids = tuple(block_ids)
        for other in self._others:
            other.seal(block_ids)
        self._checksums.seal(block_ids)

    def get(self, block_ids: Iterable[int]) -> tuple[int, ...]:
        """Rank 0's; the others have their own."""
        return self._checksums.get(block_ids)

    def put(self, block_ids: Iterable[int], checksums: Iterable[int]) -> None:
        self._checksums.put(block_ids, checksums)

    def open(
        self, reservation: int, source: Holder, epoch: Epoch, block_ids: tuple[int, ...], first_block: int
    ) -> None:
        for other in self._others:
            other.open(reservation, source, epoch, block_ids, first_block)
        self._slots.open(reservation, source, epoch, block_ids, first_block)

    def close(self, reservation: int) -> bool:
        with self._lock:
            if reservation in self._closing:
                return False
            self._closing[reservation] = self._num_ranks
        for other in self._others:
            other.close_slots(reservation)
        if self._slots.close(reservation):
            self.on_quiet(reservation)
        return False

    def send(self, link_address: str, receiver: Holder, transfer: BlockTransfer) -> None:
        """As `OutgoingLinks.send`, from every rank."""
        self._sent.expect(transfer, self._num_ranks)
        for other in self._others:
            other.send(link_address, receiver, transfer)
        self._links.send(link_address, receiver, transfer)

    # In links' threads

    def on_arrived(self, reservation: int, first_block: int, count: int, checksums: tuple[int, ...]) -> None:
        self._on_part((reservation, first_block, count), checksums)

    def on_far_arrived(self, reservation: int, first_block: int, count: int) -> None:
        self._on_part((reservation, first_block, count), ())

    def on_quiet(self, reservation: int) -> None:
        with self._lock:
            self._closing[reservation] -= 1
            if self._closing[reservation]:
                return
            del self._closing[reservation]
            for key in [key for key in self._arriving if key[0] == reservation]:
                del self._arriving[key]
        self._events.on_quiet(reservation)

    def _on_part(self, key: _Arrived, checksums: tuple[int, ...]) -> None:
        with self._lock:
            parts = self._arriving.setdefault(key, _Parts(self._num_ranks))
            parts.num_left -= 1
            parts.checksums = parts.checksums or checksums
            if parts.num_left:
                return
            del self._arriving[key]
        self._events.on_arrived(*key, parts.checksums)
