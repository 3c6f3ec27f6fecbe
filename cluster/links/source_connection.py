"""The source's end of one link: connect, greet, and move one transfer after the other."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from cluster import failpoints
from cluster.handshake import Caller, Unauthenticated
from cluster.links.config import LinkConfig
from cluster.links.deadline import Deadline
from cluster.links.device_region import DeviceRegion, Region
from cluster.links.errors import LinkError, TransferRefused
from cluster.links.frame_socket import FrameSocket
from cluster.links.host_identity import host_identity
from cluster.links.kv_region import KvRegion
from cluster.links.nccl_transfer import NcclSender
from cluster.messages import BlockTransfer, Holder
from cluster.pb import instance_pb2
from cluster.pb.links_pb2 import Done, LinkFrame, LinkHello, LinkWelcome, Offer, Post
from cluster.secret import ClusterSecret, Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkEnd:
    """One rank of an instance in one of its lives."""

    holder: Holder
    rank: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkKey:
    """A link: one direction between two ranks, and where the receiving one listens (`host:port`)."""

    source: LinkEnd
    receiver: LinkEnd
    address: str


class SourceConnection:
    """Used by one thread. `LinkError` means that the link is over, `TransferRefused` only the transfer."""

    def __init__(self, sock: FrameSocket, region: Region, config: LinkConfig, secret: ClusterSecret) -> None:
        self._socket = sock
        self._region = region
        self._config = config
        self._secret = secret
        self._slot = 0
        self._nccl = NcclSender(sock, region) if isinstance(region, DeviceRegion) else None
        self._send_blocks: Callable[[BlockTransfer, Deadline], None] = self._send_records

    def open(self, key: LinkKey, sockaddr: Any) -> LinkWelcome:
        """Connects and greets. Raises LinkError, also when the receiver wants no such link."""
        deadline = Deadline.after(self._config.setup_timeout_s, f"answer from {key.address}")
        self._socket.connect(sockaddr, deadline)
        hello = LinkHello(
            source=_holder(key.source.holder),
            source_rank=key.source.rank,
            receiver=_holder(key.receiver.holder),
            receiver_rank=key.receiver.rank,
            host=host_identity(),
            region_path=self._region.path,
            region_bytes=self._region.num_bytes,
            record_bytes=self._region.record_bytes,
            transport=self._config.transport,
            on_device=self._nccl is not None,
        )
        self._prove(key, hello, deadline)
        welcome = self._socket.expect(deadline).welcome
        if welcome.error or welcome.transport not in (("nccl",) if self._nccl else ("shm", "tcp")):
            raise LinkError(f"{key.receiver.holder.instance} refuses the link: {welcome.error or 'no transport'}")
        if welcome.transport == "shm":
            self._send_blocks = self._let_copy
        elif self._nccl is not None:
            self._send_blocks = self._send_over_nccl
        return welcome

    def close(self) -> None:
        if self._nccl is not None:
            self._nccl.close()

    def _prove(self, key: LinkKey, hello: LinkHello, deadline: Deadline) -> None:
        """Says hello, and that both belong to the same cluster."""
        caller = Caller(self._secret, Kind.LINK, hello)
        self._socket.send(LinkFrame(hello=hello), deadline)
        try:
            proof = caller.answer(self._socket.expect(deadline).challenge)
        except Unauthenticated as error:
            raise LinkError(f"{key.receiver.holder.instance} is not to be trusted: {error}") from error
        self._socket.send(LinkFrame(proof=proof), deadline)

    def transfer(self, transfer: BlockTransfer) -> None:
        """Returns when the blocks have arrived and been checked."""
        self._slot += 1
        deadline = Deadline.after(self._config.transfer_timeout_s, "answer to an offer")
        offer = Offer(
            slot=self._slot,
            reservation=transfer.reservation,
            epoch=instance_pb2.Epoch(term=transfer.epoch.term, n=transfer.epoch.n),
            first_block=transfer.first_block,
            block_ids=transfer.block_ids,
            checksums=transfer.checksums if self._config.checksum else (),
            valid_until_ns=deadline.at_ns,
        )
        failpoints.hit("links.source.offer", offer)
        with self._hold(offer):
            self._socket.send(LinkFrame(offer=offer), deadline)
            self._send_blocks(transfer, deadline)
        self._take_done(self._socket.expect(deadline).done)

    def _send_records(self, transfer: BlockTransfer, deadline: Deadline) -> None:
        """tcp: the records follow the receiver's Post."""
        self._expect_post(deadline)
        assert isinstance(self._region, KvRegion)
        for records in self._region.batches(transfer.block_ids):
            failpoints.hit("links.source.batch", transfer)
            self._socket.send_views([record.data for record in records], deadline)

    def _send_over_nccl(self, transfer: BlockTransfer, deadline: Deadline) -> None:
        assert self._nccl is not None
        self._nccl.send(self._expect_post(deadline), transfer.block_ids, deadline)

    def _hold(self, offer: Offer) -> AbstractContextManager[None]:
        return nullcontext() if self._nccl is None else self._nccl.hold(offer)

    def _expect_post(self, deadline: Deadline) -> Post:
        answer = self._socket.expect(deadline)
        if answer.WhichOneof("frame") == "done":
            self._take_done(answer.done)
            raise LinkError("Done for blocks that were not sent")
        if answer.post.slot != self._slot:
            raise LinkError(f"a Post for slot {answer.post.slot} instead of {self._slot}")
        return answer.post

    def _let_copy(self, transfer: BlockTransfer, deadline: Deadline) -> None:
        """shm: the receiver reads this memory itself; so a source that is gone or mistaken never writes into it."""

    def _take_done(self, done: Done) -> None:
        if done.slot != self._slot:
            raise LinkError(f"a Done for slot {done.slot} instead of {self._slot}")
        if done.error:
            raise TransferRefused(done.error)


def _holder(holder: Holder) -> instance_pb2.Holder:
    return instance_pb2.Holder(instance=holder.instance, incarnation=holder.incarnation)
