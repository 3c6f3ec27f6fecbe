"""What a channel enqueues: messages on one stream, packing and unpacking on another, events between the two.

Every message is an operation of its own. In a group the first would leave only when the last is packed, and both ends
would have to group alike.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cluster import failpoints
from cluster.links.nccl_device import Communicator, DeviceBuffer, Event, NcclDevice
from cluster.links.nccl_messages import is_contiguous, spans
from cluster.links.record_part import RecordPart
from cluster.links.record_shape import RecordRows

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
        self,
        communicator: Communicator,
        region: "DeviceRegion",
        part: RecordPart,
        block_ids: Sequence[int],
        messages: Sequence[int],
    ) -> None:
        """A half is packed again once the message that left from it is complete."""
        ids = self._upload(part, block_ids, messages)
        for span in spans(messages):
            failpoints.hit("links.source.batch")
            blocks = block_ids[span]
            if self._is_straight(part, blocks):
                communicator.send(region.pointer_of(blocks[0]), len(blocks) * part.num_bytes, self._messages)
                continue
            for rows in self._cut(part):
                half, staging = self._take_half()
                self._wait_for_half(half, self._copies)
                self._pack(region.pointer, ids + span.start * ID_BYTES, len(blocks), rows, staging)
                self._device.wait(self._messages, self._device.record(self._copies))
                communicator.send(staging, len(blocks) * rows.num_bytes, self._messages)
                self._free[half] = self._device.record(self._messages)

    def receive(
        self,
        communicator: Communicator,
        region: "DeviceRegion",
        part: RecordPart,
        block_ids: Sequence[int],
        messages: Sequence[int],
    ) -> None:
        """A half takes the next message once the one before was unpacked from it."""
        ids = self._upload(part, block_ids, messages)
        for span in spans(messages):
            failpoints.hit("links.receive.message")
            blocks = block_ids[span]
            if self._is_straight(part, blocks):
                communicator.receive(region.pointer_of(blocks[0]), len(blocks) * part.num_bytes, self._messages)
                continue
            for rows in self._cut(part):
                half, staging = self._take_half()
                self._wait_for_half(half, self._messages)
                communicator.receive(staging, len(blocks) * rows.num_bytes, self._messages)
                self._device.wait(self._copies, self._device.record(self._messages))
                self._unpack(region.pointer, ids + span.start * ID_BYTES, len(blocks), rows, staging)
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

    def _upload(self, part: RecordPart, block_ids: Sequence[int], messages: Sequence[int]) -> int:
        """The ids in device memory, if any message needs them; kept until the next transfer, which comes after."""
        if all(self._is_straight(part, block_ids[span]) for span in spans(messages)):
            return 0
        self._ids = self._device.upload(block_ids, self._copies)
        return self._ids.pointer

    def _is_straight(self, part: RecordPart, block_ids: Sequence[int]) -> bool:
        """Whether what moves lies in one piece, and moves as one at the other end too."""
        return part.is_whole and is_contiguous(block_ids) and not self._is_cut(part)

    def _is_cut(self, part: RecordPart) -> bool:
        """Both ends see it alike: whether a part of a single block is more than staging holds."""
        return part.shape is not None and part.num_bytes > self._staging_bytes

    def _cut(self, part: RecordPart) -> Iterable[RecordRows]:
        return part.rows.cut(self._staging_bytes) if self._is_cut(part) else (part.rows,)

    def _pack(self, records: int, ids: int, count: int, rows: RecordRows, staging: int) -> None:
        if rows.num_bytes == rows.record_bytes:
            self._device.pack(records, ids, count, rows.record_bytes, staging, self._copies)
        else:
            self._device.pack_heads(records, ids, count, rows, staging, self._copies)

    def _unpack(self, records: int, ids: int, count: int, rows: RecordRows, staging: int) -> None:
        if rows.num_bytes == rows.record_bytes:
            self._device.unpack(records, ids, count, rows.record_bytes, staging, self._copies)
        else:
            self._device.unpack_heads(records, ids, count, rows, staging, self._copies)

    def _take_half(self) -> tuple[int, int]:
        half, self._half = self._half, 1 - self._half
        return half, self._staging[half].pointer

    def _wait_for_half(self, half: int, stream: object) -> None:
        if (event := self._free[half]) is not None:
            self._device.wait(stream, event)
