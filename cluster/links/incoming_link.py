"""One link from a peer: its thread, from the greeting to the end."""

import logging
import socket
import threading
from collections.abc import Callable
from functools import partial

from cluster.handshake import Called, Unauthenticated
from cluster.links.block_receivers import BlockReceiver, ShmBlockReceiver, TcpBlockReceiver
from cluster.links.config import LinkConfig
from cluster.links.deadline import Deadline
from cluster.links.device_region import DeviceRegion, Region
from cluster.links.errors import BlockDamaged, LinkError, MalformedFrame, MemoryInUse
from cluster.links.events import ReceiverEvents
from cluster.links.frame_socket import FrameSocket
from cluster.links.host_identity import host_identity
from cluster.links.nccl_transfer import NcclBlockReceiver
from cluster.links.slot_table import Refusal, SlotTable
from cluster.links.source_connection import LinkEnd
from cluster.messages import Epoch, Holder
from cluster.pb.links_pb2 import Done, LinkFrame, LinkHello, LinkWelcome, Offer
from cluster.secret import ClusterSecret, Kind

log = logging.getLogger(__name__)


class IncomingLink:
    """Takes offers one after the other until the peer closes, something breaks, or `close`."""

    def __init__(
        self,
        sock: socket.socket,
        end: LinkEnd,
        region: Region,
        slots: SlotTable,
        config: LinkConfig,
        events: ReceiverEvents,
        secret: ClusterSecret,
        on_end: Callable[["IncomingLink"], None],
    ) -> None:
        self._socket = FrameSocket(sock)
        self._end = end
        self._region = region
        self._slots = slots
        self._config = config
        self._events = events
        self._secret = secret
        self._on_end = on_end
        self._source = Holder("?", 0)
        self._thread = threading.Thread(target=self._run, name="link from a peer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Ends it soon; `join` waits for that."""
        self._socket.shutdown()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        receiver: BlockReceiver | None = None
        try:
            receiver = self._greet()
            while (frame := self._socket.receive(None)) is not None:
                self._take(frame.offer, receiver)
        except (LinkError, OSError) as error:
            if isinstance(error, MalformedFrame) and receiver is not None:
                self._events.on_malformed()
            # Not the error itself: who keeps the record would keep the mapped memory that its traceback refers to.
            log.warning("the link from %s is over: %s", self._source.instance, str(error))
        finally:
            self._socket.close()
            if receiver is not None:
                receiver.close()
            self._on_end(self)

    def _greet(self) -> BlockReceiver:
        deadline = Deadline.after(self._config.setup_timeout_s, "greeting")
        hello = self._let_in(deadline)
        self._source = Holder(hello.source.instance, hello.source.incarnation)
        try:
            transport, note, receiver = self._choose(hello)
        except LinkError as refusal:
            self._socket.send(LinkFrame(welcome=LinkWelcome(error=str(refusal))), deadline)
            raise
        self._socket.send(LinkFrame(welcome=LinkWelcome(transport=transport, note=note)), deadline)
        return receiver

    def _let_in(self, deadline: Deadline) -> LinkHello:
        """Returns only when the source has proved that it belongs to the cluster: nothing is done for a stranger."""
        try:
            hello = self._socket.expect(deadline).hello
            called = Called(self._secret, Kind.LINK, hello)
            self._socket.send(LinkFrame(challenge=called.challenge()), deadline)
            called.check(self._socket.expect(deadline).proof)
        except LinkError:
            self._events.on_unauthenticated()
            raise
        except Unauthenticated as error:
            self._events.on_unauthenticated()
            self._socket.send(LinkFrame(welcome=LinkWelcome(error=str(error))), deadline)
            raise LinkError(str(error)) from error
        return hello

    def _choose(self, hello: LinkHello) -> tuple[str, str, BlockReceiver]:
        """(transport, why it is not the better one, its receiver). Raises LinkError when there is to be no link."""
        meant = (hello.receiver.instance, hello.receiver.incarnation, hello.receiver_rank)
        own = (self._end.holder.instance, self._end.holder.incarnation, self._end.rank)
        if meant != own:
            raise LinkError("this is {} in incarnation {}, rank {}; meant was {}, {}, {}".format(*own, *meant))
        if hello.record_bytes != self._region.record_bytes:
            raise LinkError(f"records of {hello.record_bytes} bytes do not fit {self._region.record_bytes}")
        asked = {hello.transport, self._config.transport} - {"auto"}
        if len(asked) > 1:
            raise LinkError(f"the source insists on {hello.transport}, the receiver on {self._config.transport}")
        if hello.on_device or isinstance(self._region, DeviceRegion) or asked == {"nccl"}:
            return "nccl", "", self._over_nccl(hello, asked)
        if asked == {"tcp"}:
            return "tcp", "", TcpBlockReceiver(self._socket, self._region)
        try:
            if hello.host != host_identity():
                raise OSError("not on the same host")
            return "shm", "", ShmBlockReceiver(self._socket, self._region, hello)
        except OSError as error:
            if asked == {"shm"}:
                raise LinkError(f"no shm link: {error}") from error
            if hello.host != host_identity():
                return "tcp", "", TcpBlockReceiver(self._socket, self._region)
            log.warning("tcp instead of shm for the link from %s: %s", self._source.instance, error)
            return "tcp", f"no shm: {error}", TcpBlockReceiver(self._socket, self._region)

    def _over_nccl(self, hello: LinkHello, asked: set[str]) -> BlockReceiver:
        on_device = isinstance(self._region, DeviceRegion)
        if not (hello.on_device and on_device):
            kinds = ["GPU" if each else "host" for each in (hello.on_device, on_device)]
            raise LinkError("no nccl link: KV is in {} memory at the source, in {} memory here".format(*kinds))
        if asked - {"nccl"}:
            raise LinkError(f"no {asked.pop()} link: KV is in GPU memory at both ends, which only nccl moves")
        assert isinstance(self._region, DeviceRegion)
        return NcclBlockReceiver(self._socket, self._region)

    def _take(self, offer: Offer, receiver: BlockReceiver) -> None:
        """One rendezvous: refused, arrived or bad, and the source is told which."""
        deadline = Deadline.after(self._config.transfer_timeout_s, "complete transfer")
        first_block, count = offer.first_block, len(offer.block_ids)
        block_ids = self._post(offer)
        if isinstance(block_ids, Refusal):
            reason = block_ids.value
            self._on_refused(offer, block_ids)
        else:
            try:
                reason = self._flaw(offer, receiver) or receiver.receive(offer, block_ids, deadline)
            except BlockDamaged as error:
                self._events.on_damaged()
                reason = str(error)
            except MemoryInUse as error:  # law 9: they stay posted as long as anything may come
                error.when_dead(partial(self._abandon, offer, f"cut off: {error}"))
                raise
            except Exception as error:  # whatever it was: the operation is over, and its blocks must not stay posted
                self._abandon(offer, f"cut off: {error}")
                raise
            if reason:
                self._abandon(offer, reason)
            elif self._slots.complete(offer.reservation, first_block, count):
                # Before Done: whatever the source says to the engine after it finds the blocks in place.
                self._events.on_arrived(offer.reservation, first_block, count, tuple(offer.checksums))
            else:
                reason = Refusal.UNKNOWN_RESERVATION.value
        self._socket.send(LinkFrame(done=Done(slot=offer.slot, error=reason)), deadline)

    def _post(self, offer: Offer) -> tuple[int, ...] | Refusal:
        """Where the blocks are to go, or why they are refused."""
        count = len(offer.block_ids)
        if not offer.slot or not count:
            raise MalformedFrame("an offer of nothing")
        epoch = Epoch(offer.epoch.term, offer.epoch.n)
        return self._slots.post(offer.reservation, self._source, epoch, offer.first_block, count)

    def _on_refused(self, offer: Offer, refusal: Refusal) -> None:
        """What another source has reserved is none of this one's business: that it asked ends nothing."""
        if refusal is Refusal.WRONG_SOURCE:
            self._events.on_malformed()
        else:
            self._events.on_bad(offer.reservation, refusal.value)

    def _flaw(self, offer: Offer, receiver: BlockReceiver) -> str:
        """Why nothing is to be received though the slot is there, or nothing."""
        count = len(offer.block_ids)
        if len(offer.checksums) not in ((count,) if self._config.checksum else (0, count)):
            return f"{len(offer.checksums)} checksums for {count} blocks"
        return receiver.refusal(offer)

    def _abandon(self, offer: Offer, reason: str) -> None:
        if self._slots.abandon(offer.reservation, offer.first_block, len(offer.block_ids)):
            self._events.on_bad(offer.reservation, reason)
