"""The two ends of a transfer over NCCL, between the frames of the link's socket.

source                                receiver
Offer(communicator it has, or 0) -->  grants the slot; the same communicator, or an id for a new one
                                 <--  Post(communicator, its id if new, how the blocks are cut into messages)
sets up, sends                        sets up, receives, checks
                                 <--  Done
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cluster.links.deadline import Deadline
from cluster.links.device_region import DeviceRegion
from cluster.links.errors import BlockDamaged, LinkError
from cluster.links.frame_socket import FrameSocket
from cluster.links.nccl_channel import DEATH_GRACE_S, NcclChannel
from cluster.links.nccl_channels import NoCommunicator
from cluster.links.nccl_device import UNIQUE_ID_BYTES
from cluster.links.nccl_messages import is_contiguous, plan_messages, spans, staging_blocks
from cluster.links.record_part import RecordPart
from cluster.pb.links_pb2 import LinkFrame, Offer, Post, ProbeOffer

SOURCE_RANK, RECEIVER_RANK = 0, 1


class _Watch:
    """Ends every wait for NCCL with the deadline, and as soon as the peer hangs up or the link is closed."""

    def __init__(self, sock: FrameSocket, deadline: Deadline) -> None:
        self._socket = sock
        self._deadline = deadline

    def __call__(self) -> None:
        self._deadline.remaining_s()
        if self._socket.has_hung_up():
            raise LinkError("the link was closed within a transfer")


class NcclSender:
    """The source's end; it may lose its communicator between two transfers, to another link that needs one."""

    def __init__(self, sock: FrameSocket, region: DeviceRegion) -> None:
        self._socket = sock
        self._region = region
        self._channel: NcclChannel | None = None
        self._number = 0  # of its communicator, at the receiver

    @contextmanager
    def hold(self, offer: Offer | ProbeOffer) -> Iterator[None]:
        """From before the offer until the transfer is over nobody takes away the communicator that it names."""
        channels = self._region.channels
        if self._channel is not None and not channels.hold(self._channel):
            self._channel, self._number = None, 0
        offer.communicator = self._number
        try:
            yield
        finally:
            if self._channel is not None:
                channels.release(self._channel)

    def send(self, post: Post, part: RecordPart, block_ids: Sequence[int], deadline: Deadline) -> None:
        """Returns when all has left. Raises LinkError when nothing reads the blocks any more, else MemoryInUse."""
        watch = _Watch(self._socket, deadline)
        self._check_messages(post, part, block_ids)
        channel = self._channel_for(post, deadline, watch)
        channel.send(self._region, block_ids, post.message_blocks, watch, part=part, hang_up=self._socket.shutdown)

    def probe(self, post: Post, num_bytes: int, deadline: Deadline) -> None:
        """From staging: no block is read."""
        watch = _Watch(self._socket, deadline)
        channel = self._channel_for(post, deadline, watch)
        channel.probe(num_bytes, watch, sends=True, hang_up=self._socket.shutdown)

    def close(self) -> None:
        _close(self._channel)

    def _channel_for(self, post: Post, deadline: Deadline, watch: _Watch) -> NcclChannel:
        if post.unique_id:
            self._set_up(post, deadline, watch)
        if self._channel is None or self._number != post.communicator:
            raise LinkError(f"a Post for communicator {post.communicator}, which is not there")
        return self._channel

    def _set_up(self, post: Post, deadline: Deadline, watch: _Watch) -> None:
        if len(post.unique_id) != UNIQUE_ID_BYTES or not post.communicator:
            raise LinkError("a Post with a malformed communicator")
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._channel, self._number = self._region.channels.open(deadline), post.communicator
        self._channel.set_up(post.unique_id, SOURCE_RANK, watch)

    def _check_messages(self, post: Post, part: RecordPart, block_ids: Sequence[int]) -> None:
        counts, most = post.message_blocks, staging_blocks(part.num_bytes)
        if sum(counts) != len(block_ids) or not all(counts):
            raise LinkError(f"messages of {list(counts)} blocks for a transfer of {len(block_ids)}")
        if any(
            count > most and not (part.shape is None and is_contiguous(block_ids[span]))
            for count, span in zip(counts, spans(counts), strict=True)
        ):
            raise LinkError(f"a message of more than {most} scattered blocks, or parts of blocks")


class NcclBlockReceiver:
    """Implements `BlockReceiver`. Of parts of records it does not know before they are in place whether they are right:
    what is wrong is in blocks that nobody uses then.
    """

    def __init__(self, sock: FrameSocket, region: DeviceRegion, part: RecordPart) -> None:
        self._socket = sock
        self._region = region
        self._part = part
        self._channel: NcclChannel | None = None

    def refusal(self, offer: Offer) -> str:
        return ""

    def receive(self, offer: Offer, block_ids: Sequence[int], deadline: Deadline) -> str:
        watch = _Watch(self._socket, deadline)
        try:
            unique_id = self._take_channel(offer, deadline, watch)
        except NoCommunicator as error:
            return str(error)
        channel, part = self._channel, self._part
        assert channel is not None
        try:
            messages = plan_messages(offer.block_ids, block_ids, part.num_bytes, whole=part.shape is None)
            post = Post(slot=offer.slot, communicator=channel.number, unique_id=unique_id, message_blocks=messages)
            self._socket.send(LinkFrame(post=post), deadline)
            if unique_id:
                channel.set_up(unique_id, RECEIVER_RANK, watch)
            checksums = channel.receive(
                self._region,
                block_ids,
                messages,
                watch,
                checksum=bool(offer.checksums),
                part=part,
                hang_up=self._socket.shutdown,
            )
        finally:
            self._region.channels.release(channel)
        wrong = (index for index, (a, b) in enumerate(zip(checksums, offer.checksums, strict=True)) if a != b)
        if (index := next(wrong, None)) is not None:
            raise BlockDamaged(f"wrong checksum of block {offer.first_block + index}")
        return ""

    def probe(self, offer: ProbeOffer, deadline: Deadline, *, checksum: bool) -> str:
        """Into staging; the checksums are those of as many blocks as would have come."""
        watch = _Watch(self._socket, deadline)
        try:
            unique_id = self._take_channel(offer, deadline, watch)
        except NoCommunicator as error:
            return str(error)
        channel, region = self._channel, self._region
        assert channel is not None
        try:
            post = Post(slot=offer.slot, communicator=channel.number, unique_id=unique_id)
            self._socket.send(LinkFrame(post=post), deadline)
            if unique_id:
                channel.set_up(unique_id, RECEIVER_RANK, watch)
            channel.probe(offer.num_bytes, watch, sends=False, hang_up=self._socket.shutdown)
            if checksum:
                num_blocks = -(-offer.num_bytes // region.record_bytes)
                channel.checksums(region, [index % region.num_records for index in range(num_blocks)], watch)
        finally:
            region.channels.release(channel)
        return ""

    def close(self) -> None:
        _close(self._channel)

    def _take_channel(self, offer: Offer | ProbeOffer, deadline: Deadline, watch: _Watch) -> bytes:
        """Empty when the source has the other end of our communicator already, else the id of a new one."""
        channels, channel = self._region.channels, self._channel
        if channel is not None and channels.hold(channel):
            if channel.number == offer.communicator:
                return b""
            channel.close()
        self._channel = None
        self._channel = channels.open(deadline)
        return self._channel.make_unique_id(watch)


def _close(channel: NcclChannel | None) -> None:
    if channel is not None:
        channel.close()
        channel.death.wait(DEATH_GRACE_S)
