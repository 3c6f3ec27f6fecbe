"""The receiver's side of moving blocks: one way per transport, one outcome.

Both write records into the receiver's own memory and check them there, where nobody else can change them any more.
"""

import mmap
import time
from collections.abc import Sequence
from typing import Protocol

from cluster import failpoints
from cluster.links.deadline import Deadline
from cluster.links.frame_socket import FrameSocket
from cluster.links.kv_region import KvRegion, checksum
from cluster.links.shared_region import map_peer_region
from cluster.pb.links_pb2 import LinkFrame, LinkHello, Offer, Post


class BlockReceiver(Protocol):
    def refusal(self, offer: Offer) -> str:
        """Why this offer cannot be meant for this transport, or nothing."""

    def receive(self, offer: Offer, block_ids: Sequence[int], deadline: Deadline) -> str:
        """Why what came must not be used, or nothing. Raises LinkError when it did not come in full."""

    def close(self) -> None: ...


class TcpBlockReceiver:
    """Takes the records from the socket, straight into their places."""

    def __init__(self, sock: FrameSocket, region: KvRegion) -> None:
        self._socket = sock
        self._region = region

    def refusal(self, offer: Offer) -> str:
        return ""

    def receive(self, offer: Offer, block_ids: Sequence[int], deadline: Deadline) -> str:
        self._socket.send(LinkFrame(post=Post(slot=offer.slot)), deadline)
        damage = ""
        for index, count in self._region.runs(block_ids):
            run = self._region.records(block_ids[index], count)
            self._socket.receive_bytes(run, deadline)
            failpoints.hit("links.receive.run", run)
            damage = damage or first_damage(self._region, offer, block_ids, index, count)
        return damage

    def close(self) -> None:
        pass


class ShmBlockReceiver:
    """Copies the records from the source's memory, mapped read-only."""

    def __init__(self, sock: FrameSocket, region: KvRegion, hello: LinkHello) -> None:
        """Raises OSError when the source's region cannot be mapped."""
        self._socket = sock
        self._region = region
        self._map: mmap.mmap = map_peer_region(hello.region_path, hello.region_bytes)
        self._source = KvRegion(buffer=memoryview(self._map), record_bytes=hello.record_bytes)

    def refusal(self, offer: Offer) -> str:
        return "blocks outside of the source's region" if max(offer.block_ids) >= self._source.num_records else ""

    def receive(self, offer: Offer, block_ids: Sequence[int], deadline: Deadline) -> str:
        source_ids = list(offer.block_ids)
        for index, count in self._region.runs(block_ids, source_ids):
            run = self._region.records(block_ids[index], count)
            run[:] = self._source.records(source_ids[index], count)
            failpoints.hit("links.receive.run", run)
            if damage := first_damage(self._region, offer, block_ids, index, count):
                return damage
        deadline.remaining_s()
        # From here on the copy is complete; was the source still bound to keep these blocks as they are?
        if time.monotonic_ns() >= offer.valid_until_ns or not self._socket.is_open():
            return "the source gave up before the copy was complete"
        return ""

    def close(self) -> None:
        self._source.buffer.release()
        self._map.close()


def first_damage(region: KvRegion, offer: Offer, block_ids: Sequence[int], index: int, count: int) -> str:
    """Checks blocks [index, index + count) of an offer where they have landed, while they are hot."""
    if not offer.checksums:
        return ""
    for at in range(index, index + count):
        if checksum(region.records(block_ids[at])) != offer.checksums[at]:
            return f"wrong checksum of block {offer.first_block + at}"
    return ""
