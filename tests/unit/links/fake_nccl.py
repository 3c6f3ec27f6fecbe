"""A cupy without a GPU: device memory, streams, events and NCCL's pairing, for two ends in one process.

`FakeCupy` stands where `CupyDevice` expects the module. `World` is what the devices share: one address space, one
network, and one thread that executes what is at the head of some stream, in random order. So what no event orders
happens in the wrong order sooner or later, as on a GPU. Misuse that a GPU would not report goes into
`World.violations`; the faults a test asks for are World's methods.
"""

import ctypes
import random
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

from cluster.links.kv_region import checksum
from cluster.links.xxh3_kernel import NUM_THREADS

PATIENCE_S = 20.0
UNIQUE_ID_BYTES = 128
UINT8 = 1
BASE = 1 << 40
_bound = threading.local()  # device, and stack of current streams, of each thread


class NcclError(RuntimeError):
    pass


class Operation:
    """What a stream holds: `is_ready` and `run` are called under the world's lock, by its thread."""

    def __init__(self, run: Callable[[], None], is_ready: Callable[[], bool] = lambda: True) -> None:
        self.run = run
        self.is_ready = is_ready


class Message(Operation):
    """One ncclSend or ncclRecv at work."""

    def __init__(self, communicator: "FakeCommunicator", kind: str, pointer: int, num_bytes: int) -> None:
        super().__init__(self._finish, self._is_over)
        self.communicator, self.kind, self.pointer, self.num_bytes = communicator, kind, pointer, num_bytes
        self.is_complete = False

    def _is_over(self) -> bool:
        """True when the kernel has exited: the bytes have moved, or the communicator was aborted."""
        own, peer = self.communicator, self.communicator.peer()
        if own.ends_kernels:
            return True
        if not self.is_complete and peer is not None and not own.is_still and not peer.is_still:
            other = peer.at_work()
            if other is not None and other.kind != self.kind and not other.is_complete:
                own.world.deliver(*((self, other) if self.kind == "send" else (other, self)))
        return self.is_complete

    def _finish(self) -> None:
        self.communicator.messages.remove(self)


class World:
    def __init__(self, seed: int = 0) -> None:
        self.violations: list[str] = []
        self.delivered: list[int] = []  # sizes of messages, in order
        self.num_packs = 0
        self.num_checksum_launches = 0
        self.num_communicators = 0
        self.changed = threading.Condition(threading.RLock())
        self.communicators: dict[bytes, dict[int, FakeCommunicator]] = {}
        self.connects_at_first_use = False  # as NCCL does: the first send blocks until the peer receives
        self.still_setups: set[FakeCupy] = set()  # whose set-ups do not come through
        self.still: set[FakeCupy] = set()  # whose messages do not move
        self.blocked_aborts: set[FakeCupy] = set()  # whose aborts do not return
        self.deaf: set[FakeCupy] = set()  # whose aborts return while the kernel still runs
        self.aborts_together = False  # as NCCL without cuMem host memory: an abort returns when the peer's has begun
        self.refuse_sends = 0
        self._random = random.Random(seed)
        self._memory: dict[int, np.ndarray] = {}
        self._next_pointer = BASE
        self._streams: weakref.WeakSet[FakeStream] = weakref.WeakSet()
        self._busy: deque[FakeStream] = deque()
        self._closed = False
        self._num_ids = 0
        self._thread = threading.Thread(target=self._execute, name="fake GPU", daemon=True)
        self._thread.start()

    def close(self) -> None:
        with self.changed:
            self._closed = True
            self.changed.notify_all()
        self._thread.join()

    def heal(self) -> None:
        """Whatever was still or deaf goes on."""
        with self.changed:
            for faulty in (self.still_setups, self.still, self.blocked_aborts, self.deaf):
                faulty.clear()
            self.changed.notify_all()

    def lose(self, owner: "FakeCupy") -> None:
        """This process is gone: its peers learn of it as NCCL tells it, asynchronously."""
        with self.changed:
            self.still.add(owner)
            for pair in self.communicators.values():
                for communicator in pair.values():
                    if communicator.owner is owner and (peer := communicator.peer()) is not None:
                        peer.trouble = "remote process exited or there was a network error"
            self.changed.notify_all()

    # Memory

    def allocate(self, num_bytes: int) -> int:
        with self.changed:
            pointer = self._next_pointer
            self._next_pointer += (num_bytes + 8191) // 4096 * 4096  # a gap behind each: nothing runs on into the next
            self._memory[pointer] = np.full(num_bytes, 0xEE, np.uint8)
            return pointer

    def adopt(self, pointer: int, memory: np.ndarray) -> None:
        """Memory of this process that somebody takes for a GPU's."""
        with self.changed:
            self._memory[pointer] = memory

    def free(self, pointer: int) -> None:
        with self.changed:
            del self._memory[pointer]

    def view(self, pointer: int, num_bytes: int) -> np.ndarray:
        for start, memory in self._memory.copy().items():  # another thread, or a finalizer in this one, may free some
            if start <= pointer and pointer + num_bytes <= start + len(memory):
                return memory[pointer - start : pointer - start + num_bytes]
        raise MemoryError(f"{num_bytes} bytes at {pointer:#x} are not allocated")

    # Execution

    def enqueue(self, stream: "FakeStream", operation: Operation) -> None:
        with self.changed:
            stream.operations.append(operation)
            if len(stream.operations) == 1:
                self._busy.append(stream)
            self.changed.notify_all()

    def deliver(self, sent: Message, received: Message) -> None:
        if sent.num_bytes != received.num_bytes:
            self.violations.append(f"a message of {sent.num_bytes} bytes meets a receive of {received.num_bytes}")
        count = min(sent.num_bytes, received.num_bytes)
        self.view(received.pointer, count)[:] = self.view(sent.pointer, count)
        self.delivered.append(count)
        sent.is_complete = received.is_complete = True

    def move_records(self, records: int, ids: int, count: int, record_bytes: int, packed: int, to_records: int) -> None:
        for index, block_id in enumerate(self.view(ids, 8 * count).view(np.int64)):
            record = self.view(records + int(block_id) * record_bytes, record_bytes)
            slot = self.view(packed + index * record_bytes, record_bytes)
            self._check_unposted(packed + index * record_bytes, record_bytes, "send" if not to_records else "receive")
            if to_records:
                record[:] = slot
            else:
                slot[:] = record
        self.num_packs += 1

    def move_heads(
        self,
        records: int,
        ids: int,
        count: int,
        record_bytes: int,
        packed: int,
        to_records: int,
        rows: tuple[int, int, int, int],
    ) -> None:
        num_rows, pitch, first, width = rows
        for index, block_id in enumerate(self.view(ids, 8 * count).view(np.int64)):
            record = self.view(records + int(block_id) * record_bytes, record_bytes)
            slot_bytes = num_rows * width
            slot = self.view(packed + index * slot_bytes, slot_bytes)
            self._check_unposted(packed + index * slot_bytes, slot_bytes, "receive" if to_records else "send")
            for row in range(num_rows):
                inside = record[first + row * pitch :][:width]
                outside = slot[row * width :][:width]
                if to_records:
                    inside[:] = outside
                else:
                    outside[:] = inside
        self.num_packs += 1

    def checksum_records(self, records: int, ids: int, count: int, record_bytes: int, checksums: int) -> None:
        found = self.view(checksums, 8 * count).view(np.uint64)
        for index, block_id in enumerate(self.view(ids, 8 * count).view(np.int64)):
            found[index] = checksum(self.view(records + int(block_id) * record_bytes, record_bytes))
        self.num_checksum_launches += 1

    def _check_unposted(self, pointer: int, num_bytes: int, kind: str) -> None:
        for pair in self.communicators.values():
            for communicator in pair.values():
                message = communicator.at_work()
                if message is None or message.kind != kind or message.is_complete:
                    continue
                if message.pointer < pointer + num_bytes and pointer < message.pointer + message.num_bytes:
                    self.violations.append(f"staging is touched while a {kind} is at work in it")

    def _execute(self) -> None:
        with self.changed:
            while not self._closed:
                if not self._step():
                    self.changed.wait(PATIENCE_S)

    def _step(self) -> bool:
        """Runs one operation that is ready, if any is."""
        order = self._random.sample(list(self._busy), len(self._busy))
        for stream in order:
            if stream.operations[0].is_ready():
                try:
                    stream.operations[0].run()
                except Exception as error:
                    self.violations.append(str(error))
                stream.operations.popleft()
                if not stream.operations:
                    self._busy.remove(stream)
                self.changed.notify_all()
                return True
        return False


class FakeStream:
    def __init__(self, world: World, null: bool = False, non_blocking: bool = False) -> None:
        if not non_blocking:
            world.violations.append("a stream that waits for the default one")
        self.world = world
        self.operations: deque[Operation] = deque()
        self.ptr = id(self)
        _streams_by_ptr[self.ptr] = self

    def wait_event(self, event: "FakeEvent") -> None:
        self.world.enqueue(self, Operation(lambda: None, lambda: event.is_done))

    def synchronize(self) -> None:
        event = FakeEvent(self.world, block=True, disable_timing=True)
        event.record(self)
        event.synchronize()

    def __enter__(self) -> "FakeStream":
        _bound.__dict__.setdefault("streams", []).append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _bound.streams.pop()


_streams_by_ptr: weakref.WeakValueDictionary[int, FakeStream] = weakref.WeakValueDictionary()


class FakeEvent:
    def __init__(
        self, world: World, block: bool = False, disable_timing: bool = False, interprocess: bool = False
    ) -> None:
        if not block:
            world.violations.append("an event on which a waiting thread spins")
        self.world = world
        self.is_done = False

    def record(self, stream: FakeStream | None = None) -> None:
        assert stream is not None, "recorded on the default stream"
        self.world.enqueue(stream, Operation(self._set))

    def synchronize(self) -> None:
        with self.world.changed:
            self.world.changed.wait_for(lambda: self.is_done)

    def _set(self) -> None:
        self.is_done = True


class FakeCommunicator:
    """NcclCommunicator, with cupy's argument names."""

    def __init__(
        self, owner: "FakeCupy", world: World, ndev: int, commId: bytes, rank: int, config: Any = None
    ) -> None:
        assert ndev == 2
        assert len(commId) == UNIQUE_ID_BYTES
        _check_bound(world, "NcclCommunicator")
        self.owner, self.world, self.rank = owner, world, rank
        self.trouble: str | Exception = ""
        self.is_aborted = self.is_connected = False
        self.messages: list[Message] = []  # enqueued and not over, in order
        self.stream = 0
        with world.changed:
            pair = world.communicators.setdefault(commId, {})
            if rank in pair:
                world.violations.append(f"rank {rank} twice")
            pair[rank] = self
            self._pair = pair
            world.changed.notify_all()
            world.changed.wait_for(lambda: len(pair) == 2 and self._may_set_up())
            world.num_communicators += 1

    def send(self, sendbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        self._enqueue("send", sendbuf, count, datatype, peer, stream)

    def recv(self, recvbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        self._enqueue("receive", recvbuf, count, datatype, peer, stream)

    def check_async_error(self) -> None:
        if self.trouble:
            raise self.trouble if isinstance(self.trouble, Exception) else NcclError(self.trouble)

    def abort(self) -> None:
        _check_bound(self.world, "abort")
        with self.world.changed:
            self.world.changed.wait_for(lambda: self.owner not in self.world.blocked_aborts)
            self.is_aborted = True
            self.world.changed.notify_all()
            if self.world.aborts_together and (peer := self.peer()) is not None:
                self.world.changed.wait_for(lambda: peer.is_aborted)

    @property
    def ends_kernels(self) -> bool:
        return self.is_aborted and self.owner not in self.world.deaf

    @property
    def is_still(self) -> bool:
        return self.owner in self.world.still

    def _may_set_up(self) -> bool:
        return not any(end.owner in self.world.still_setups for end in self._pair.values())

    def peer(self) -> "FakeCommunicator | None":
        return self._pair.get(1 - self.rank)

    def at_work(self) -> Message | None:
        """The first message, if its stream has come to it."""
        stream = _streams_by_ptr.get(self.stream)
        at_head = stream is not None and stream.operations and self.messages[:1] == [stream.operations[0]]
        return self.messages[0] if at_head else None

    def _enqueue(self, kind: str, pointer: int, count: int, datatype: int, peer: int, stream: int) -> None:
        world = self.world
        assert datatype == UINT8
        assert peer == 1 - self.rank
        with world.changed:
            _check_bound(world, kind)
            if self.is_aborted:
                raise NcclError("used after its abort")
            if world.refuse_sends and kind == "send":
                world.refuse_sends -= 1
                raise NcclError("unhandled cuda error")
            if self.stream not in (0, stream):
                world.violations.append("messages of one communicator on two streams")
            self.stream = stream
            world.view(pointer, count)
            message = Message(self, kind, pointer, count)
            if world.connects_at_first_use and not self.is_connected:
                self._connect()
            self.messages.append(message)
            world.enqueue(_streams_by_ptr[stream], message)

    def _connect(self) -> None:
        self.is_connected = True
        self.world.changed.notify_all()
        peer = self.peer()
        self.world.changed.wait_for(lambda: self.is_aborted or (peer is not None and peer.is_connected))
        if self.is_aborted:
            raise NcclError("aborted while it connected")


class FakeCupy:
    """The part of the module that `CupyDevice` uses; `num_devices` 0: as on a machine without a GPU."""

    __version__ = "14.2.0"

    def __init__(self, world: World, num_devices: int = 1) -> None:
        self._world = world
        self.cuda = SimpleNamespace(
            nccl=FakeNccl(world, self),
            runtime=FakeRuntime(world, num_devices),
            Device=lambda device_id: FakeDevice(world, device_id),
            Stream=lambda **options: FakeStream(world, **options),
            Event=lambda **options: FakeEvent(world, **options),
            alloc=lambda size: FakePointer(world, size),
        )

    def RawKernel(self, code: str, name: str) -> "FakeKernel | FakeHeadsKernel | FakeChecksumKernel":
        assert f" {name}(" in code
        kernels = {"move_records": FakeKernel, "move_heads": FakeHeadsKernel, "xxh3_records": FakeChecksumKernel}
        return kernels[name](self._world)

    def asarray(self, array: np.ndarray) -> Any:
        data = FakePointer(self._world, array.nbytes)
        target, content = self._world.view(data.ptr, array.nbytes), array.view(np.uint8).copy()

        def copy() -> None:
            target[:] = content

        self._world.enqueue(_bound.streams[-1], Operation(copy))
        return SimpleNamespace(data=data)


class FakeNccl:
    available = True
    NCCL_UINT8 = UINT8

    def __init__(self, world: World, owner: FakeCupy) -> None:
        self._world = world
        self._owner = owner

    def get_version(self) -> int:
        return 23000

    def get_build_version(self) -> int:
        return 22501

    def get_unique_id(self) -> bytes:
        self._world._num_ids += 1
        return self._world._num_ids.to_bytes(UNIQUE_ID_BYTES, "little")

    def NcclCommunicator(self, *arguments: Any) -> FakeCommunicator:
        return FakeCommunicator(self._owner, self._world, *arguments)


class FakeRuntime:
    memcpyDeviceToHost = 2

    def __init__(self, world: World, num_devices: int) -> None:
        self._world = world
        self._num_devices = num_devices

    def getDeviceCount(self) -> int:
        if not self._num_devices:
            raise RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
        return self._num_devices

    def runtimeGetVersion(self) -> int:
        return 12090

    def memcpyAsync(self, dst: int, src: int, size: int, kind: int, stream: int) -> None:
        assert kind == self.memcpyDeviceToHost

        def copy() -> None:
            ctypes.memmove(dst, self._world.view(src, size).ctypes.data, size)

        self._world.enqueue(_streams_by_ptr[stream], Operation(copy))


class FakeDevice:
    def __init__(self, world: World, device_id: int) -> None:
        self._world = world

    def use(self) -> None:
        _bound.world = self._world

    def __enter__(self) -> None:
        self._before = getattr(_bound, "world", None)
        self.use()

    def __exit__(self, *_: object) -> None:
        _bound.world = self._before


class FakePointer:
    """Freed with the last reference, as cupy's MemoryPointer."""

    def __init__(self, world: World, size: int) -> None:
        _check_bound(world, "alloc")
        self.ptr = world.allocate(size)
        weakref.finalize(self, world.free, self.ptr)


class FakeKernel:
    """`move_records`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: Sequence[Any]) -> None:
        assert [type(each) for each in args] == [np.uint64] * 4 + [np.int32]
        assert all(0 < size <= limit for size, limit in zip(grid, (2**31 - 1, 65535), strict=True))
        assert 0 < block[0] <= 1024
        records, ids, record_bytes, packed, to_records = (int(each) for each in args)

        def move() -> None:
            self._world.move_records(records, ids, grid[0], record_bytes, packed, to_records)

        self._world.enqueue(_bound.streams[-1], Operation(move))


class FakeHeadsKernel:
    """`move_heads`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: Sequence[Any]) -> None:
        assert [type(each) for each in args] == [np.uint64] * 4 + [np.int32, np.uint32] + [np.uint64] * 3
        assert all(0 < size <= limit for size, limit in zip(grid, (2**31 - 1, 65535), strict=True))
        assert 0 < block[0] <= 1024
        records, ids, record_bytes, packed, to_records, num_rows, pitch, first, width = (int(each) for each in args)
        assert first + (num_rows - 1) * pitch + width <= record_bytes
        assert width <= pitch

        def move() -> None:
            self._world.move_heads(
                records, ids, grid[0], record_bytes, packed, to_records, (num_rows, pitch, first, width)
            )

        self._world.enqueue(_bound.streams[-1], Operation(move))


class FakeChecksumKernel:
    """`xxh3_records`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: Sequence[Any]) -> None:
        assert [type(each) for each in args] == [np.uint64] * 4
        assert block == (NUM_THREADS,)
        records, ids, record_bytes, checksums = (int(each) for each in args)
        count = grid[0]

        def compute() -> None:
            self._world.checksum_records(records, ids, count, record_bytes, checksums)

        self._world.enqueue(_bound.streams[-1], Operation(compute))


@contextmanager
def make_world(seed: int = 0) -> Iterator[World]:
    """Ends with a check that nothing was misused."""
    world = World(seed)
    try:
        yield world
    finally:
        world.heal()
        world.close()
    assert not world.violations, world.violations


def _check_bound(world: World, what: str) -> None:
    if getattr(_bound, "world", None) is not world:
        world.violations.append(f"{what} in a thread without a device")
