"""Packing, unpacking and checksums on a GPU, beside a plain copy of as many bytes, in turns."""

import random
from collections.abc import Callable
from time import perf_counter

import torch

from cluster.links.nccl_device import NcclDevice
from cluster.links.record_shape import HeadRange, RecordShape
from deploy.bench.gpu_link_figures import CHECKSUM, COPY, MOVE, MOVE_CHECKED, PACK, PACK_HEADS, UNPACK
from deploy.bench.stopwatch import wait

SIZES = (8 << 20, 64 << 20, 512 << 20)
"""The first is a message over NCCL."""

REGION_BYTES = 1 << 30
MOVED_BYTES = 1 << 30  # about so much in a row, so that the host's part is small

Work = Callable[[int], None]


class Copies:
    """One method per contestant: moves so many bytes, and does not wait. Blocks lie in random order."""

    def __init__(self, links: NcclDevice, device: torch.device, shape: RecordShape, region_bytes: int) -> None:
        links.bind()
        self._links, self._device = links, device
        self._record_bytes, self._num_records = shape.record_bytes, region_bytes // shape.record_bytes
        num_bytes = self._num_records * self._record_bytes
        self._region, self._staging, self._arrived = (
            torch.zeros(num_bytes, dtype=torch.uint8, device=device) for _ in range(3)
        )
        wait(device)
        self._half = shape.strided(HeadRange(start=0, count=max(1, shape.num_heads // 2)))
        self._stream = links.make_stream()
        order = random.Random(0).sample(range(self._num_records), self._num_records)
        self._order, self._ids = order, links.upload(order, self._stream)
        self._checksums = links.checksummer(self._region.data_ptr(), self._record_bytes)

    @property
    def contestants(self) -> dict[str, Work]:
        return {
            COPY: self._copy,
            PACK: self._pack,
            UNPACK: self._unpack,
            PACK_HEADS: self._pack_heads,
            CHECKSUM: self._checksum,
            MOVE: self._move,
            MOVE_CHECKED: self._move_checked,
        }

    def time_s(self, work: Work, num_bytes: int) -> float:
        """Of one, from the first's beginning to the last's end."""
        num_times = max(1, MOVED_BYTES // num_bytes) if self._device.type == "cuda" else 1
        self._wait()
        start = perf_counter()
        for _ in range(num_times):
            work(num_bytes)
        self._wait()
        return (perf_counter() - start) / num_times

    def _wait(self) -> None:
        self._links.synchronize(self._links.record(self._stream))
        wait(self._device)

    def _copy(self, num_bytes: int) -> None:
        self._staging[:num_bytes].copy_(self._region[:num_bytes])

    def _pack(self, num_bytes: int) -> None:
        arguments = self._region.data_ptr(), self._ids.pointer, num_bytes // self._record_bytes, self._record_bytes
        self._links.pack(*arguments, self._staging.data_ptr(), self._stream)

    def _unpack(self, num_bytes: int) -> None:
        arguments = self._region.data_ptr(), self._ids.pointer, num_bytes // self._record_bytes, self._record_bytes
        self._links.unpack(*arguments, self._staging.data_ptr(), self._stream)

    def _pack_heads(self, num_bytes: int) -> None:
        """Of as many records as it takes for so many bytes of these heads."""
        count = min(self._num_records, num_bytes // self._half.num_bytes)
        arguments = self._region.data_ptr(), self._ids.pointer, count, self._half
        self._links.pack_heads(*arguments, self._staging.data_ptr(), self._stream)

    def _checksum(self, num_bytes: int) -> None:
        """It waits, as who asks for checksums does."""
        self._checksums(self._order[: num_bytes // self._record_bytes])

    def _move(self, num_bytes: int) -> None:
        """What a transfer is without a link: copied from staging to staging."""
        self._pack(num_bytes)
        self._wait()
        self._arrived[:num_bytes].copy_(self._staging[:num_bytes])
        self._wait()
        self._unpack(num_bytes)
        self._wait()

    def _move_checked(self, num_bytes: int) -> None:
        self._checksum(num_bytes)
        self._move(num_bytes)
        self._checksum(num_bytes)


def measure_copies(copies: Copies, sizes: tuple[int, ...], num_rounds: int) -> dict[str, dict[int, list[float]]]:
    """Seconds of one move, by contestant and size; a round before the first only warms up."""
    seconds: dict[str, dict[int, list[float]]] = {name: {size: [] for size in sizes} for name in copies.contestants}
    for turn in range(-1, num_rounds):
        for size in sizes:
            for name, work in copies.contestants.items():
                took_s = copies.time_s(work, size)
                if turn >= 0:
                    seconds[name][size].append(took_s)
    return seconds
