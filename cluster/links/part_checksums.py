"""Checksums of some heads of blocks on a GPU: they are gathered beside, as they come at the other end."""

import threading
from collections.abc import Callable, Sequence

from cluster.links.nccl_device import DeviceBuffer, NcclDevice
from cluster.links.record_shape import RecordRows

SCRATCH_BYTES = 8 << 20


class PartChecksums:
    """Of the records at `pointer`. Thread-safe; one caller at a time has the scratch memory, made when it is needed."""

    def __init__(self, device: NcclDevice, pointer: int) -> None:
        self._device = device
        self._pointer = pointer
        self._lock = threading.Lock()
        self._scratch: DeviceBuffer | None = None
        self._scratch_bytes = 0
        self._of_scratch: dict[int, Callable[[Sequence[int]], tuple[int, ...]]] = {}  # by the parts' size

    def __call__(self, block_ids: Sequence[int], rows: RecordRows) -> tuple[int, ...]:
        found: list[int] = []
        with self._lock:
            self._device.bind()
            scratch = self._make_scratch(max(SCRATCH_BYTES, rows.num_bytes))
            if (checksums := self._of_scratch.get(rows.num_bytes)) is None:
                checksums = self._of_scratch[rows.num_bytes] = self._device.checksummer(scratch.pointer, rows.num_bytes)
            most = self._scratch_bytes // rows.num_bytes
            for start in range(0, len(block_ids), most):
                found += self._of(block_ids[start : start + most], rows, scratch, checksums)
        return tuple(found)

    def _of(
        self,
        block_ids: Sequence[int],
        rows: RecordRows,
        scratch: DeviceBuffer,
        checksums: Callable[[Sequence[int]], tuple[int, ...]],
    ) -> tuple[int, ...]:
        stream = self._device.make_stream()
        ids = self._device.upload(block_ids, stream)
        self._device.pack_heads(self._pointer, ids.pointer, len(block_ids), rows, scratch.pointer, stream)
        self._device.synchronize(self._device.record(stream))
        return checksums(range(len(block_ids)))

    def _make_scratch(self, num_bytes: int) -> DeviceBuffer:
        if self._scratch is None or self._scratch_bytes < num_bytes:
            self._of_scratch.clear()
            self._scratch, self._scratch_bytes = self._device.allocate(num_bytes), num_bytes
        return self._scratch
