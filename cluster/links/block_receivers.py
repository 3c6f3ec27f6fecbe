"""The receiver's side of moving blocks: one way per transport, one outcome.

Both write records into the receiver's own memory and check them there, where nobody else can change them any more.
"""

import time
from collections.abc import Sequence
from typing import Protocol

from cluster import failpoints
from cluster.links.deadline import Deadline
from cluster.links.errors import BlockDamaged
from cluster.links.frame_socket import FrameSocket
from cluster.links.kv_region import KvRegion, checksum
from cluster.links.shared_region import map_peer_region
from cluster.pb.links_pb2 import LinkFrame, LinkHello, Offer, Post


class BlockReceiver(Protocol):
    def refusal(self, offer: Offer) -> str:
        """Why this offer cannot be meant for this transport, or nothing."""

    def receive(self, offer: Offer, block_ids: Sequence[int], deadline: Deadline) -> str:
        """Why what came must not be used, or nothing. Raises BlockDamaged; LinkError when it did not come in full.

        MemoryInUse, which is one, says that more of it may come.
        """

    def close(self) -> None:
        """The link is over."""


class TcpBlockReceiver:
    """Takes the records from the socket, straight into their places."""

    def __init__(self, sock: FrameSocket, region: KvRegion) -> None:
        self._socket = sock
        self._region = region

    def refusal(self, offer: Offer) -> str:
        return ""

    def close(self) -> None:
        pass

    def receive(self, offer: Offer, block_ids: Sequence[int], deadline: Deadline) -> str:
        self._socket.send(LinkFrame(post=Post(slot=offer.slot)), deadline)
        checksums = list(offer.checksums)
        index, damage = 0, ""
        for records in self._region.batches(block_ids):
            self._socket.receive_views([record.data for record in records], deadline)
            for record in records:
                failpoints.hit("links.receive.record", record)
                # The rest still has to be taken from the stream.
                if checksums and checksum(record) != checksums[index]:
                    damage = f"wrong checksum of block {offer.first_block + index}"
                index += 1
        if damage:
            raise BlockDamaged(damage)
        return ""


class ShmBlockReceiver:
    """Copies the records from the source's memory, mapped read-only for as long as this object lives."""

    def __init__(self, sock: FrameSocket, region: KvRegion, hello: LinkHello) -> None:
        """Raises OSError when the source's region cannot be mapped."""
        self._socket = sock
        self._records = region.records
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
            record = self._records[block_id]
            record[:] = self._source_records[source_id]
            failpoints.hit("links.receive.record", record)
            if checksums and checksum(record) != checksums[index]:
                raise BlockDamaged(f"wrong checksum of block {offer.first_block + index}")
        # Without checksums: was the source bound to keep these blocks as they are until the copy was complete?
        if not checksums and (time.monotonic_ns() >= offer.valid_until_ns or not self._socket.is_open()):
            return "the source gave up before the copy was complete"
        return ""
