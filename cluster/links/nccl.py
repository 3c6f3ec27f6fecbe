"""NCCL and CUDA through cupy: the only file that touches either. Thin: the transport's logic is in `nccl_channel.py`.

cupy's NcclConfig has no `blocking` (14.2 knows `split_share` only), so communicators are blocking ones, and who calls
them has to be able to abandon the call.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cluster.links import heads_kernel, xxh3_kernel
from cluster.links.kv_region import checksum
from cluster.links.nccl_device import Communicator, DeviceBuffer, Event, NcclUnavailable, Stream
from cluster.links.nccl_versions import NO_CUPY, NO_NCCL, check_cuda, check_cupy, check_nccl, no_kernels
from cluster.links.record_shape import RecordRows

THREADS = 256
MAX_BLOCKS_PER_RECORD = 32
IN_PROGRESS = 7  # ncclInProgress: no error

# A block of threads moves (its share of) one record; x counts records, because y ends at 65535.
_MOVE_RECORDS = r"""
extern "C" __global__ void move_records(
    char* records, const long long* block_ids, unsigned long long record_bytes, char* packed, int to_records
) {
    char* record = records + block_ids[blockIdx.x] * record_bytes;
    char* slot = packed + blockIdx.x * record_bytes;
    const char* from = to_records ? slot : record;
    char* to = to_records ? record : slot;
    const unsigned long long first = blockIdx.y * (unsigned long long)blockDim.x + threadIdx.x;
    const unsigned long long stride = gridDim.y * (unsigned long long)blockDim.x;
    if (((unsigned long long)from | (unsigned long long)to | record_bytes) % sizeof(uint4) == 0) {
        for (unsigned long long i = first; i < record_bytes / sizeof(uint4); i += stride)
            ((uint4*)to)[i] = ((const uint4*)from)[i];
    } else {
        for (unsigned long long i = first; i < record_bytes; i += stride)
            to[i] = from[i];
    }
}
"""


class CupyDevice:
    """Implements `NcclDevice`. Raises NcclUnavailable where there is none, or not in the version that is needed.

    `cuda`: what others in this process, such as torch, are built for ("12.8"). `cupy` is for tests.
    """

    def __init__(self, device_id: int = 0, cupy: Any = None, *, cuda: str | None = None) -> None:
        self._cupy = cupy or _import_cupy()
        self._nccl = self._cupy.cuda.nccl
        self.device_id = device_id
        check_cupy(self._cupy.__version__)
        try:
            self.num_devices = count = int(self._cupy.cuda.runtime.getDeviceCount())
        except Exception as error:  # CUDARuntimeError: no driver, or one that is too old
            raise NcclUnavailable(f"no CUDA device: {error}") from error
        if device_id >= count:
            raise NcclUnavailable(f"no CUDA device {device_id}: there are {count}")
        if not self._nccl.available:
            raise NcclUnavailable(NO_NCCL)
        check_nccl(self.nccl_version(), built_for=int(self._nccl.get_build_version()))
        check_cuda(int(self._cupy.cuda.runtime.runtimeGetVersion()), cuda)
        with self._cupy.cuda.Device(device_id):
            self._move_records = self._cupy.RawKernel(_MOVE_RECORDS, "move_records")
            self._move_heads = self._cupy.RawKernel(heads_kernel.CODE, heads_kernel.NAME)
            try:
                self._load_kernels()
            except Exception as error:  # CompileException of NVRTC, RuntimeError where that is missing
                raise no_kernels(self._cupy.__version__, error) from error

    def _load_kernels(self) -> None:
        """Runs them once, now. Loaded later, one might wait for a kernel that waits for its peer, under a deadline."""
        stream, num_bytes = self.make_stream(), 16
        record, packed, ids = self.allocate(num_bytes), self.allocate(num_bytes), self.upload((0,), stream)
        self.pack(record.pointer, ids.pointer, 1, num_bytes, packed.pointer, stream)
        rows = RecordRows(record_bytes=num_bytes, num_rows=1, pitch=num_bytes, first=0, width=num_bytes)
        self.pack_heads(record.pointer, ids.pointer, 1, rows, packed.pointer, stream)
        self.synchronize(self.record(stream))

    def nccl_version(self) -> int:
        """22501 is 2.25.1."""
        return int(self._nccl.get_version())

    def bind(self) -> None:
        self._cupy.cuda.Device(self.device_id).use()

    def make_unique_id(self) -> bytes:
        return bytes(self._nccl.get_unique_id())

    def init_rank(self, unique_id: bytes, rank: int) -> Communicator:
        return _CupyCommunicator(self._nccl.NcclCommunicator(2, unique_id, rank), 1 - rank, self._nccl)

    def make_stream(self) -> Stream:
        return self._cupy.cuda.Stream(non_blocking=True)

    def allocate(self, num_bytes: int) -> DeviceBuffer:
        """From cupy's pool: freeing with cudaFree would wait for the whole device, other links' operations included."""
        return _CupyBuffer(self._cupy.cuda.alloc(num_bytes))

    def upload(self, block_ids: Sequence[int], stream: Stream) -> DeviceBuffer:
        with stream:
            return _CupyBuffer(self._cupy.asarray(np.array(block_ids, np.int64)).data)

    def pack(self, records: int, block_ids: int, count: int, record_bytes: int, packed: int, stream: Stream) -> None:
        self._move(records, block_ids, count, record_bytes, packed, stream, to_records=0)

    def unpack(self, records: int, block_ids: int, count: int, record_bytes: int, packed: int, stream: Stream) -> None:
        self._move(records, block_ids, count, record_bytes, packed, stream, to_records=1)

    def pack_heads(
        self, records: int, block_ids: int, count: int, rows: RecordRows, packed: int, stream: Stream
    ) -> None:
        self._move_rows(records, block_ids, count, rows, packed, stream, to_records=0)

    def unpack_heads(
        self, records: int, block_ids: int, count: int, rows: RecordRows, packed: int, stream: Stream
    ) -> None:
        self._move_rows(records, block_ids, count, rows, packed, stream, to_records=1)

    def record(self, stream: Stream) -> Event:
        event = self._cupy.cuda.Event(block=True, disable_timing=True)  # block: a waiting thread sleeps
        event.record(stream)
        return event

    def wait(self, stream: Stream, event: Event) -> None:
        stream.wait_event(event)

    def synchronize(self, event: Event) -> None:
        event.synchronize()

    def checksummer(self, pointer: int, record_bytes: int) -> Callable[[Sequence[int]], tuple[int, ...]]:
        """XXH3-64 of records at `pointer`, of which there is at least one; its kernel is loaded now."""
        if record_bytes < xxh3_kernel.MIN_RECORD_BYTES or (pointer | record_bytes) % xxh3_kernel.ALIGNMENT_BYTES:
            return self._host_checksummer(pointer, record_bytes)
        with self._cupy.cuda.Device(self.device_id):
            kernel = self._cupy.RawKernel(xxh3_kernel.CODE, xxh3_kernel.NAME)
        runtime = self._cupy.cuda.runtime

        def checksums(block_ids: Sequence[int]) -> tuple[int, ...]:
            if not block_ids:
                return ()
            found = np.empty(len(block_ids), np.uint64)
            with self._cupy.cuda.Device(self.device_id):
                stream = self.make_stream()  # the default one would wait for the engine's work
                ids, results = self.upload(block_ids, stream), self.allocate(found.nbytes)
                pointers = np.uint64(pointer), np.uint64(ids.pointer), np.uint64(record_bytes)
                with stream:
                    kernel((len(block_ids),), (xxh3_kernel.NUM_THREADS,), (*pointers, np.uint64(results.pointer)))
                to_host = runtime.memcpyDeviceToHost
                runtime.memcpyAsync(found.ctypes.data, results.pointer, found.nbytes, to_host, stream.ptr)
                stream.synchronize()
            return tuple(found.tolist())

        checksums((0,))
        return checksums

    def _host_checksummer(self, pointer: int, record_bytes: int) -> Callable[[Sequence[int]], tuple[int, ...]]:
        """Computed by the CPU on a copy: for records of a size or place that the kernel does not read."""
        runtime = self._cupy.cuda.runtime

        def checksums(block_ids: Sequence[int]) -> tuple[int, ...]:
            host, found = np.empty(record_bytes, np.uint8), []
            with self._cupy.cuda.Device(self.device_id):
                stream = self.make_stream()
                for block_id in block_ids:
                    source = pointer + block_id * record_bytes
                    runtime.memcpyAsync(host.ctypes.data, source, record_bytes, runtime.memcpyDeviceToHost, stream.ptr)
                    stream.synchronize()
                    found.append(checksum(host))
            return tuple(found)

        return checksums

    def _move(
        self, records: int, ids: int, count: int, record_bytes: int, packed: int, stream: Stream, *, to_records: int
    ) -> None:
        pointers = np.uint64(records), np.uint64(ids), np.uint64(record_bytes), np.uint64(packed)
        with stream:
            self._move_records(_grid(count, record_bytes), (THREADS,), (*pointers, np.int32(to_records)))

    def _move_rows(
        self, records: int, ids: int, count: int, rows: RecordRows, packed: int, stream: Stream, *, to_records: int
    ) -> None:
        pointers = np.uint64(records), np.uint64(ids), np.uint64(rows.record_bytes), np.uint64(packed)
        where = np.uint32(rows.num_rows), np.uint64(rows.pitch), np.uint64(rows.first), np.uint64(rows.width)
        with stream:
            self._move_heads(_grid(count, rows.num_bytes), (THREADS,), (*pointers, np.int32(to_records), *where))


def _grid(count: int, num_bytes: int) -> tuple[int, int]:
    """Blocks of threads for `count` records, of each of which so many bytes move."""
    share = THREADS * 16 * 4  # bytes that a block of threads moves in a few turns
    return count, max(1, min(MAX_BLOCKS_PER_RECORD, num_bytes // share))


class _CupyBuffer:
    """`memory` is cupy's MemoryPointer."""

    def __init__(self, memory: Any) -> None:
        self._memory = memory
        self.pointer = int(memory.ptr)


class _CupyCommunicator:
    """Of one that is being aborted nothing more is asked: cupy forgets it only when NCCL has freed it."""

    def __init__(self, communicator: Any, peer: int, nccl: Any) -> None:
        self._communicator = communicator
        self._peer = peer
        self._nccl = nccl
        self._is_over = False

    def send(self, pointer: int, num_bytes: int, stream: Stream) -> None:
        self._get().send(pointer, num_bytes, self._nccl.NCCL_UINT8, self._peer, stream.ptr)

    def receive(self, pointer: int, num_bytes: int, stream: Stream) -> None:
        self._get().recv(pointer, num_bytes, self._nccl.NCCL_UINT8, self._peer, stream.ptr)

    def check(self) -> str:
        try:
            self._get().check_async_error()
        except Exception as error:  # NcclError, or KeyError of a status that cupy has no name for
            return "" if IN_PROGRESS in (getattr(error, "status", None), *error.args) else repr(error)
        return ""

    def abort(self) -> None:
        self._is_over = True
        self._communicator.abort()

    def _get(self) -> Any:
        if self._is_over:
            raise RuntimeError("the communicator was aborted")
        return self._communicator


def _import_cupy() -> Any:
    try:
        cupy = importlib.import_module("cupy")
        importlib.import_module("cupy.cuda.nccl")
    except ImportError as error:
        raise NcclUnavailable(f"{NO_CUPY}: {error}") from error
    return cupy
