"""One link from a peer: its thread, from the greeting to the end."""

import logging
import socket
import threading
from collections.abc import Callable
from functools import partial

from cluster.handshake import Called, Unauthenticated
from cluster.links.block_receivers import BlockReceiver
from cluster.links.deadline import Deadline
from cluster.links.errors import BlockDamaged, LinkError, MalformedFrame, MemoryInUse
from cluster.links.frame_socket import FrameSocket
from cluster.links.lanes import Lanes
from cluster.links.receiving import ReceivingEnd
from cluster.links.record_part import RecordPart
from cluster.links.slot_table import Arrival, Refusal
from cluster.links.transport_choice import check_meant, choose, source_of
from cluster.messages import Epoch, Holder
from cluster.pb.links_pb2 import Done, LinkFrame, LinkHello, LinkWelcome, Offer, ProbeOffer, WeightsHello
from cluster.secret import Kind

MAX_PROBE_BYTES = 256 << 20

log = logging.getLogger(__name__)


class IncomingLink:
    """Takes offers one after the other until the peer closes, something breaks, or `close`.

    A connection that joins another link is that one's from then on, and this one's thread ends. Who opens with
    WeightsHello wants weights and no link.
    """

    def __init__(self, sock: socket.socket, receiving: ReceivingEnd, on_end: Callable[["IncomingLink"], None]) -> None:
        self._socket = FrameSocket(sock)
        self._lanes = Lanes(self._socket)
        self._receiving = receiving
        self._slots = receiving.slots
        self._config = receiving.config
        self._events = receiving.events
        self._on_end = on_end
        self._source = Holder("?", 0)
        self._has_joined = False
        self._part = RecordPart(num_bytes=receiving.region.record_bytes)
        self._thread = threading.Thread(target=self._run, name="link from a peer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Ends it soon; `join` waits for that."""
        self._lanes.shutdown()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        receiver: BlockReceiver | None = None
        try:
            receiver = self._greet()
            while receiver is not None and (frame := self._socket.receive(None)) is not None:
                self._act(frame, receiver)
        except (LinkError, OSError) as error:
            if isinstance(error, MalformedFrame) and receiver is not None:
                self._events.on_malformed()
            # Not the error itself: who keeps the record would keep the mapped memory that its traceback refers to.
            log.warning("the link from %s is over: %s", self._source.instance, str(error))
        finally:
            if not self._has_joined:
                self._lanes.close()
                self._socket.close()
            if receiver is not None:
                receiver.close()
            self._on_end(self)

    def _greet(self) -> BlockReceiver | None:
        """None when it has become a part of another link, or was none."""
        deadline = Deadline.after(self._config.setup_timeout_s, "greeting")
        hello = self._let_in(deadline)
        if isinstance(hello, WeightsHello):
            self._give_weights(hello)
            return None
        self._source = Holder(hello.source.instance, hello.source.incarnation)
        try:
            check_meant(hello, self._receiving)
            if hello.joins:
                self._receiving.links.join(hello.joins, source_of(hello), self._socket)
                self._has_joined = True
                welcome, receiver = LinkWelcome(transport="tcp"), None
            else:
                choice = choose(hello, self._receiving, self._socket, self._lanes)
                welcome, receiver, self._part = choice.welcome, choice.receiver, choice.part
        except LinkError as refusal:
            self._socket.send(LinkFrame(welcome=LinkWelcome(error=str(refusal))), deadline)
            raise
        self._socket.send(LinkFrame(welcome=welcome), deadline)
        return receiver

    def _give_weights(self, hello: WeightsHello) -> None:
        self._source = Holder(hello.caller, 0)
        if self._receiving.weights is None:
            raise LinkError("there are no weights to be had here")
        self._receiving.weights.serve(self._socket, hello, self._receiving.end.holder)

    def _let_in(self, deadline: Deadline) -> LinkHello | WeightsHello:
        """Returns only when the source has proved that it belongs to the cluster: nothing is done for a stranger."""
        try:
            frame = self._socket.expect(deadline)
            wants_weights = frame.WhichOneof("frame") == "weights_hello"
            hello = frame.weights_hello if wants_weights else frame.hello
            called = Called(self._receiving.secret, Kind.WEIGHTS if wants_weights else Kind.LINK, hello)
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

    def _act(self, frame: LinkFrame, receiver: BlockReceiver) -> None:
        if frame.WhichOneof("frame") == "probe":
            self._take_probe(frame.probe, receiver)
        else:
            self._take(frame.offer, receiver)

    def _take_probe(self, offer: ProbeOffer, receiver: BlockReceiver) -> None:
        """Bytes for nobody: whatever happens to them, no block is touched and no engine hears of it."""
        if not offer.slot or not 0 < offer.num_bytes <= MAX_PROBE_BYTES:
            raise MalformedFrame(f"a probe of {offer.num_bytes} bytes")
        deadline = Deadline.after(self._config.transfer_timeout_s, "complete probe")
        reason = receiver.probe(offer, deadline, checksum=self._config.checksum)
        self._socket.send(LinkFrame(done=Done(slot=offer.slot, error=reason)), deadline)

    def _take(self, offer: Offer, receiver: BlockReceiver) -> None:
        """One rendezvous: refused, arrived or bad, and the source is told which."""
        deadline = Deadline.after(self._config.transfer_timeout_s, "complete transfer")
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
            elif not self._complete(offer, block_ids):
                reason = Refusal.UNKNOWN_RESERVATION.value
        self._socket.send(LinkFrame(done=Done(slot=offer.slot, error=reason)), deadline)

    def _complete(self, offer: Offer, block_ids: tuple[int, ...]) -> bool:
        """Whether anybody still wants these blocks; who does is told when all parts of them are there."""
        first_block, count, part = offer.first_block, len(block_ids), self._part
        arrival = self._slots.complete_part(offer.reservation, first_block, count, part.index, part.num_parts)
        if arrival is Arrival.WHOLE:
            checksums = tuple(offer.checksums)
            if part.num_parts > 1 and checksums:
                checksums = self._receiving.region.checksums(block_ids)
            # Before Done: whatever the source says to the engine after it finds the blocks in place.
            self._events.on_arrived(offer.reservation, first_block, count, checksums)
        return arrival is not Arrival.UNWANTED

    def _post(self, offer: Offer) -> tuple[int, ...] | Refusal:
        """Where the blocks are to go, or why they are refused."""
        count = len(offer.block_ids)
        if not offer.slot or not count:
            raise MalformedFrame("an offer of nothing")
        epoch = Epoch(offer.epoch.term, offer.epoch.n)
        return self._slots.post(offer.reservation, self._source, epoch, offer.first_block, count, self._part.index)

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
        if self._slots.abandon(offer.reservation, offer.first_block, len(offer.block_ids), self._part.index):
            self._events.on_bad(offer.reservation, reason)
