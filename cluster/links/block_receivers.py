"""The receiver's side of moving blocks: one way per transport, one outcome.

Both write records into the receiver's own memory and check them there, where nobody else can change them any more.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import numpy as np

from cluster import failpoints
from cluster.links.deadline import Deadline
from cluster.links.errors import BlockDamaged
from cluster.links.frame_socket import FrameSocket
from cluster.links.kv_region import KvRegion, batches, checksum
from cluster.links.lanes import Lanes
from cluster.links.probe.memory import Scratch, pieces
from cluster.links.record_part import RecordPart
from cluster.links.record_shape import Record
from cluster.links.shared_region import map_peer_region
from cluster.pb.links_pb2 import LinkFrame, LinkHello, Offer, Post, ProbeOffer


class BlockReceiver(Protocol):
    def refusal(self, offer: Offer) -> str:
        """Why this offer cannot be meant for this transport, or nothing."""

    def receive(self, offer: Offer, block_ids: Sequence[int], deadline: Deadline) -> str:
        """Why what came must not be used, or nothing. Raises BlockDamaged; LinkError when it did not come in full.

        MemoryInUse, which is one, says that more of it may come.
        """

    def probe(self, offer: ProbeOffer, deadline: Deadline, *, checksum: bool) -> str:
        """Moves as `receive` does, to where no blocks are; why it did not, or nothing. Raises LinkError."""

    def close(self) -> None:
        """The link is over."""


class TcpBlockReceiver:
    """Takes the records from the link's connections, straight into their places. `on_close` tells when it is over."""

    def __init__(
        self,
        sock: FrameSocket,
        lanes: Lanes,
        region: KvRegion,
        part: RecordPart,
        scratch: Scratch,
        probe_bytes: int,
        on_close: Callable[[], None],
    ) -> None:
        self._socket = sock
        self._lanes = lanes
        self._region = region
        self._part = part
        self._scratch = scratch
        self._probe_bytes = probe_bytes
        self._on_close = on_close

    def refusal(self, offer: Offer) -> str:
        return ""

    def close(self) -> None:
        self._on_close()

    def receive(self, offer: Offer, block_ids: Sequence[int], deadline: Deadline) -> str:
        checksums = list(offer.checksums)
        damaged: list[int] = []

        def check(index: int, record: Record) -> None:
            failpoints.hit("links.receive.record", record)
            # The rest still has to be taken from the stream.
            if checksums and checksum(record) != checksums[index]:
                damaged.append(index)

        self._socket.send(LinkFrame(post=Post(slot=offer.slot)), deadline)
        records = [self._region.records[block_id] for block_id in block_ids]
        # Whole records come straight into their places, some heads of them beside, until all are there and checked.
        landing = records if self._part.is_whole else self._part.room(len(records))
        self._lanes.run(landing, max(1, offer.num_connections), partial(_take, check, deadline))
        if damaged:
            raise BlockDamaged(f"wrong checksum of block {offer.first_block + min(damaged)}")
        if not self._part.is_whole:
            for record, gathered in zip(records, landing, strict=True):
                self._part.scatter(record, gathered)
        return ""

    def probe(self, offer: ProbeOffer, deadline: Deadline, *, checksum: bool) -> str:
        check = _check_for_nothing if checksum else _check_not
        self._socket.send(LinkFrame(post=Post(slot=offer.slot)), deadline)
        records = self._scratch.pieces(offer.num_bytes, self._probe_bytes)
        self._lanes.run(records, max(1, offer.num_connections), partial(_take, check, deadline))
        if offer.num_kept:
            self._lanes.keep(offer.num_kept)
        return ""


class ShmBlockReceiver:
    """Copies the records from the source's memory, mapped read-only for as long as this object lives."""

    def __init__(
        self,
        sock: FrameSocket,
        region: KvRegion,
        scratch: Scratch,
        hello: LinkHello,
        source_part: RecordPart,
        part: RecordPart,
    ) -> None:
        """Raises OSError when the source's region cannot be mapped."""
        self._socket = sock
        self._source_part, self._part = source_part, part
        self._records = region.records
        self._scratch = scratch
        source = map_peer_region(hello.region_path, hello.region_bytes)
        self._source_records = KvRegion(memoryview(source), hello.record_bytes).records

    def refusal(self, offer: Offer) -> str:
        return "blocks outside of the source's region" if max(offer.block_ids) >= len(self._source_records) else ""

    def close(self) -> None:
        """The mapping goes with this object."""

    def receive(self, offer: Offer, block_ids: Sequence[int], deadline: Deadline) -> str:
        checksums = list(offer.checksums)
        for index, (block_id, source_id) in enumerate(zip(block_ids, offer.block_ids, strict=True)):
            deadline.remaining_s()  # nobody else writes here: a copy that is late stops between two records
            record = self._copy(block_id, source_id)
            failpoints.hit("links.receive.record", record)
            if checksums and checksum(record) != checksums[index]:
                raise BlockDamaged(f"wrong checksum of block {offer.first_block + index}")
            if not self._part.is_whole:
                self._part.scatter(self._records[block_id], record)
        # Without checksums: was the source bound to keep these blocks as they are until the copy was complete?
        if not checksums and (time.monotonic_ns() >= offer.valid_until_ns or not self._socket.is_open()):
            return "the source gave up before the copy was complete"
        return ""

    def probe(self, offer: ProbeOffer, deadline: Deadline, *, checksum: bool) -> str:
        check = _check_for_nothing if checksum else _check_not
        probe_bytes = min(self._records.shape[1], self._source_records.shape[1])
        theirs = pieces(self._source_records.reshape(-1), probe_bytes, offer.num_bytes)
        ours = self._scratch.pieces(offer.num_bytes, probe_bytes)
        for index, (piece, source) in enumerate(zip(ours, theirs, strict=True)):
            deadline.remaining_s()
            piece[:] = source
            check(index, piece)
        return ""

    def _copy(self, block_id: int, source_id: int) -> Record:
        """The record where it is to be; of some heads a copy that is not in place yet."""
        source = self._source_records[source_id]
        if self._part.is_whole:
            record: Record = self._records[block_id]
            self._source_part.copy(source, record)
            return record
        gathered = np.empty(self._part.num_bytes, np.uint8)
        self._source_part.copy(source, gathered)
        return gathered


def _take(
    check: Callable[[int, Record], None], deadline: Deadline, sock: FrameSocket, first: int, records: Sequence[Record]
) -> None:
    """From one connection, its share of the records."""
    index = first
    for batch in batches(records):
        sock.receive_views([record.data for record in batch], deadline)
        for record in batch:
            check(index, record)
            index += 1


def _check_for_nothing(index: int, record: Record) -> None:
    checksum(record)


def _check_not(index: int, record: Record) -> None:
    pass
