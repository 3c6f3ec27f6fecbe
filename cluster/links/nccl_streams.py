"""What a channel enqueues: messages on one stream, packing and unpacking on another, events between the two.

Every message is an operation of its own. In a group the first would leave only when the last is packed, and both ends
would have to group alike.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cluster import failpoints
from cluster.links.nccl_device import Communicator, DeviceBuffer, Event, NcclDevice
from cluster.links.nccl_messages import is_contiguous, spans

if TYPE_CHECKING:
    from cluster.links.device_region import DeviceRegion

ID_BYTES = 8


class Streams:
    """Two streams and two halves of staging. Everything returns when it is enqueued, `synchronize` when it is done."""

    def __init__(self, device: NcclDevice, staging_bytes: int) -> None:
        self._device = device
        self._staging_bytes = staging_bytes
        self._messages, self._copies = device.make_stream(), device.make_stream()
        self._staging = [device.allocate(staging_bytes) for _ in range(2)]
        self._free: list[Event | None] = [None, None]  # of each half: it was read, may be written
        self._half = 0
        self._ids: DeviceBuffer | None = None

    def send(
        self, communicator: Communicator, region: "DeviceRegion", block_ids: Sequence[int], messages: Sequence[int]
    ) -> None:
        """A half is packed again once the message that left from it is complete."""
        ids = self._upload(block_ids, messages)
        for span in spans(messages):
            failpoints.hit("links.source.batch")
            part = block_ids[span]
            num_bytes = len(part) * region.record_bytes
            if is_contiguous(part):
                communicator.send(region.pointer_of(part[0]), num_bytes, self._messages)
                continue
            half, staging = self._take_half()
            self._wait_for_half(half, self._copies)
            self._device.pack(
                region.pointer, ids + span.start * ID_BYTES, len(part), region.record_bytes, staging, self._copies
            )
            self._device.wait(self._messages, self._device.record(self._copies))
            communicator.send(staging, num_bytes, self._messages)
            self._free[half] = self._device.record(self._messages)

    def receive(
        self, communicator: Communicator, region: "DeviceRegion", block_ids: Sequence[int], messages: Sequence[int]
    ) -> None:
        """A half takes the next message once the one before was unpacked from it."""
        ids = self._upload(block_ids, messages)
        for span in spans(messages):
            failpoints.hit("links.receive.message")
            part = block_ids[span]
            num_bytes = len(part) * region.record_bytes
            if is_contiguous(part):
                communicator.receive(region.pointer_of(part[0]), num_bytes, self._messages)
                continue
            half, staging = self._take_half()
            self._wait_for_half(half, self._messages)
            communicator.receive(staging, num_bytes, self._messages)
            self._device.wait(self._copies, self._device.record(self._messages))
            self._device.unpack(
                region.pointer, ids + span.start * ID_BYTES, len(part), region.record_bytes, staging, self._copies
            )
            self._free[half] = self._device.record(self._copies)

    def probe(self, communicator: Communicator, num_bytes: int, *, sends: bool) -> None:
        """Whatever is in staging; both ends cut it alike."""
        for start in range(0, num_bytes, self._staging_bytes):
            size = min(self._staging_bytes, num_bytes - start)
            _, staging = self._take_half()
            if sends:
                communicator.send(staging, size, self._messages)
            else:
                communicator.receive(staging, size, self._messages)

    def synchronize(self) -> None:
        for stream in (self._messages, self._copies):
            self._device.synchronize(self._device.record(stream))

    def _upload(self, block_ids: Sequence[int], messages: Sequence[int]) -> int:
        """The ids in device memory, if any message needs them; kept until the next transfer, which comes after."""
        if all(is_contiguous(block_ids[span]) for span in spans(messages)):
            return 0
        self._ids = self._device.upload(block_ids, self._copies)
        return self._ids.pointer

    def _take_half(self) -> tuple[int, int]:
        half, self._half = self._half, 1 - self._half
        return half, self._staging[half].pointer

    def _wait_for_half(self, half: int, stream: object) -> None:
        if (event := self._free[half]) is not None:
            self._device.wait(stream, event)
