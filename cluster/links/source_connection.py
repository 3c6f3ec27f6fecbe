"""The source's end of one link: connect, greet, and move one transfer after the other."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from cluster import failpoints
from cluster.handshake import Caller, Unauthenticated
from cluster.links.config import LinkConfig
from cluster.links.deadline import Deadline
from cluster.links.device_region import DeviceRegion, Region, dtype_of
from cluster.links.errors import LinkError, TransferRefused
from cluster.links.frame_socket import FrameSocket
from cluster.links.host_identity import host_identity
from cluster.links.kv_region import KvRegion, batches, checksum
from cluster.links.lanes import Lanes
from cluster.links.link_end import LinkKey
from cluster.links.nccl_transfer import NcclSender
from cluster.links.probe.memory import pieces
from cluster.links.record_part import RecordPart, source_part
from cluster.links.record_shape import Record
from cluster.messages import BlockTransfer, Holder
from cluster.pb import instance_pb2
from cluster.pb.links_pb2 import Done, LinkFrame, LinkHello, LinkWelcome, Offer, Post, ProbeOffer
from cluster.secret import ClusterSecret, Kind


class SourceConnection:
    """Used by one thread; `shutdown` is for others. `LinkError` means that the link is over, `TransferRefused` only the
    transfer.
    """

    def __init__(self, sock: FrameSocket, region: Region, config: LinkConfig, secret: ClusterSecret) -> None:
        self._socket = sock
        self._region = region
        self._config = config
        self._secret = secret
        self._slot = 0
        self._lanes = Lanes(sock)
        self._lack = ""
        self._link_id = b""
        self._nccl = NcclSender(sock, region) if isinstance(region, DeviceRegion) else None
        self.transport = ""
        self.part = RecordPart(num_bytes=region.record_bytes)

    def open(self, key: LinkKey, sockaddr: Any) -> LinkWelcome:
        """Connects and greets. Raises LinkError, also when the receiver wants no such link."""
        self._key, self._sockaddr = key, sockaddr
        self.part = source_part(self._region, key.source, key.receiver)
        welcome = self._greet(self._socket, joins=b"")
        if welcome.transport not in (("nccl",) if self._nccl else ("shm", "tcp")):
            raise self._refused("no transport")
        self.transport, self._link_id = welcome.transport, welcome.link_id
        return welcome

    @property
    def num_connections(self) -> int:
        return self._lanes.num_connections

    def widen(self, num_connections: int) -> str:
        """A tcp link gets so many connections if it has fewer; why it does not, or nothing. Raises LinkError when it is
        over.

        After one that failed no other is made: the receiver may have taken it, and would count otherwise than this end.
        """
        while self._lanes.num_connections < num_connections and not self._lack:
            try:
                self._join()
            except (LinkError, OSError) as error:
                if self._lanes.is_over:
                    raise
                self._lack = str(error)
        return self._lack if self._lanes.num_connections < num_connections else ""

    def shutdown(self) -> None:
        self._lanes.shutdown()

    def close(self) -> None:
        """The socket that it was made with is left to its owner."""
        self._lanes.close()
        if self._nccl is not None:
            self._nccl.close()

    def transfer(self, transfer: BlockTransfer, num_connections: int = 1) -> float:
        """Returns when the blocks have arrived and been checked; the seconds from the offer to that."""
        records, checksums = self._gather(transfer)
        deadline = self._begin()
        offer = Offer(
            slot=self._slot,
            reservation=transfer.reservation,
            epoch=instance_pb2.Epoch(term=transfer.epoch.term, n=transfer.epoch.n),
            first_block=transfer.first_block,
            block_ids=transfer.block_ids,
            checksums=checksums,
            valid_until_ns=deadline.at_ns,
            num_connections=num_connections,
        )
        failpoints.hit("links.source.offer", offer)
        start_s = time.monotonic()
        with self._hold(offer):
            self._socket.send(LinkFrame(offer=offer), deadline)
            if self._nccl is not None:
                self._nccl.send(self._expect_post(deadline), self.part, transfer.block_ids, deadline)
            elif self.transport == "tcp":
                self._send_records(records, num_connections, deadline)
            # shm: the receiver reads this memory itself; so a source that is gone or mistaken never writes into it.
        self._take_done(self._socket.expect(deadline).done)
        return time.monotonic() - start_s

    def probe(self, num_bytes: int, num_connections: int = 1, num_kept: int = 0) -> float:
        """Moves so many bytes as a transfer would, of whatever this memory holds; the seconds that it took.

        Of its connections the link keeps `num_kept` (0: all).
        """
        deadline = self._begin()
        offer = ProbeOffer(slot=self._slot, num_bytes=num_bytes, num_connections=num_connections, num_kept=num_kept)
        start_s = time.monotonic()
        with self._hold(offer):
            self._socket.send(LinkFrame(probe=offer), deadline)
            if self._nccl is not None:
                self._nccl.probe(self._expect_post(deadline), num_bytes, deadline)
            elif self.transport == "tcp":
                assert isinstance(self._region, KvRegion)
                memory = self._region.records.reshape(-1)
                self._send_records(pieces(memory, self._probe_bytes(), num_bytes), num_connections, deadline)
        self._take_done(self._socket.expect(deadline).done)
        seconds = time.monotonic() - start_s
        if num_kept:
            self._lanes.keep(num_kept)
        return seconds

    def _gather(self, transfer: BlockTransfer) -> tuple[list[Record], tuple[int, ...]]:
        """What is to be sent of each block, and its checksums. Nothing is gathered where whole records go, or where the
        receiver reads this memory itself and asks for no checksums.
        """
        region, block_ids = self._region, transfer.block_ids
        checksums = transfer.checksums if self._config.checksum else ()
        needs_own = bool(checksums) and not self.part.is_whole
        records = []
        if isinstance(region, KvRegion) and (self.transport == "tcp" or needs_own):
            records = self.part.gather([region.records[block_id] for block_id in block_ids])
            if needs_own:
                checksums = tuple(checksum(record) for record in records)
        elif isinstance(region, DeviceRegion) and needs_own:
            checksums = region.part_checksums(block_ids, self.part.rows)
        # Law 9: what is gathered is of blocks that are still what they were when they were sealed.
        if needs_own and region.checksums(block_ids) != transfer.checksums:
            raise TransferRefused("a block has been damaged in the source's memory")
        return records, checksums

    def _probe_bytes(self) -> int:
        """Of the pieces that probes move: of the smaller record of the two."""
        own, key = self._region.record_bytes, self._key
        return min(own, own * key.source.num_ranks // key.receiver.num_ranks)

    def _begin(self) -> Deadline:
        self._slot += 1
        return Deadline.after(self._config.transfer_timeout_s, "answer to an offer")

    def _join(self) -> None:
        sock, _ = FrameSocket.to(self._key.address)
        try:
            with self._lanes.joining(sock):
                self._greet(sock, joins=self._link_id)
                self._lanes.add(sock)
        except BaseException:
            sock.close()
            raise

    def _greet(self, sock: FrameSocket, joins: bytes) -> LinkWelcome:
        """A connection of its own, or one more of the link that it joins."""
        key, region = self._key, self._region
        deadline = Deadline.after(self._config.setup_timeout_s, f"answer from {key.address}")
        sock.connect(self._sockaddr, deadline)
        hello = LinkHello(
            source=_holder(key.source.holder),
            source_rank=key.source.rank,
            receiver=_holder(key.receiver.holder),
            source_num_ranks=key.source.num_ranks,
            receiver_rank=key.receiver.rank,
            receiver_num_ranks=key.receiver.num_ranks,
            host=host_identity(),
            region_path=region.path,
            region_bytes=region.num_bytes,
            record_bytes=region.record_bytes,
            kv_dtype=dtype_of(region),
            transport=self._config.transport,
            on_device=self._nccl is not None,
            joins=joins,
        )
        self._prove(sock, hello, deadline)
        welcome = sock.expect(deadline).welcome
        if welcome.error:
            raise self._refused(welcome.error)
        return welcome

    def _prove(self, sock: FrameSocket, hello: LinkHello, deadline: Deadline) -> None:
        """Says hello, and that both belong to the same cluster."""
        caller = Caller(self._secret, Kind.LINK, hello)
        sock.send(LinkFrame(hello=hello), deadline)
        try:
            proof = caller.answer(sock.expect(deadline).challenge)
        except Unauthenticated as error:
            raise LinkError(f"{self._key.receiver.holder.instance} is not to be trusted: {error}") from error
        sock.send(LinkFrame(proof=proof), deadline)

    def _refused(self, reason: str) -> LinkError:
        return LinkError(f"{self._key.receiver.holder.instance} refuses the link: {reason}")

    def _send_records(self, records: Sequence[Record], num_connections: int, deadline: Deadline) -> None:
        """They follow the receiver's Post."""
        self._expect_post(deadline)
        self._lanes.run(records, num_connections, partial(_send, deadline))

    def _hold(self, offer: Offer | ProbeOffer) -> AbstractContextManager[None]:
        return nullcontext() if self._nccl is None else self._nccl.hold(offer)

    def _expect_post(self, deadline: Deadline) -> Post:
        answer = self._socket.expect(deadline)
        if answer.WhichOneof("frame") == "done":
            self._take_done(answer.done)
            raise LinkError("Done for blocks that were not sent")
        if answer.post.slot != self._slot:
            raise LinkError(f"a Post for slot {answer.post.slot} instead of {self._slot}")
        return answer.post

    def _take_done(self, done: Done) -> None:
        if done.slot != self._slot:
            raise LinkError(f"a Done for slot {done.slot} instead of {self._slot}")
        if done.error:
            raise TransferRefused(done.error)


def _send(deadline: Deadline, sock: FrameSocket, first: int, records: Sequence[Record]) -> None:
    for batch in batches(records):
        failpoints.hit("links.source.batch", batch)
        sock.send_views([record.data for record in batch], deadline)


def _holder(holder: Holder) -> instance_pb2.Holder:
    return instance_pb2.Holder(instance=holder.instance, incarnation=holder.incarnation)
