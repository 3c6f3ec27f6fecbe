"""What the NCCL transport asks of a GPU and its libraries: the seam under which `nccl.py` is the only real one.

Every handle is opaque to the transport. Calls come from threads that have called `bind`, all of a communicator's from
one, except `Communicator.check` and `abort`, which come from others while that one may be stuck; `check` from any.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from cluster.links.record_shape import RecordRows

UNIQUE_ID_BYTES = 128
Stream = Any
Event = Any


class NcclUnavailable(ValueError):
    """There is no GPU, no driver, no cupy or no NCCL, or not the version that is needed: the text says which."""


class DeviceBuffer(Protocol):
    """Device memory for as long as this object lives."""

    @property
    def pointer(self) -> int: ...


class Communicator(Protocol):
    """One of two ranks; the other one is the peer."""

    def send(self, pointer: int, num_bytes: int, stream: Stream) -> None:
        """Enqueues. The first one may block until the peer receives."""

    def receive(self, pointer: int, num_bytes: int, stream: Stream) -> None:
        """Enqueues. The first one may block until the peer sends."""

    def check(self) -> str:
        """The asynchronous error that befell it, or nothing."""

    def abort(self) -> None:
        """Ends what runs on it and frees it; the peer is not asked. May block."""


class NcclDevice(Protocol):
    def bind(self) -> None:
        """The calling thread works on this device from now on."""

    def make_unique_id(self) -> bytes:
        """UNIQUE_ID_BYTES that two ranks have to share to find each other."""

    def init_rank(self, unique_id: bytes, rank: int) -> Communicator:
        """Blocks until the other rank does the same, for ever if it never does."""

    def make_stream(self) -> Stream:
        """One that waits for no other."""

    def allocate(self, num_bytes: int) -> DeviceBuffer: ...

    def upload(self, block_ids: Sequence[int], stream: Stream) -> DeviceBuffer:
        """Ids for `pack` and `unpack` on the same stream, to be kept until those are complete."""

    def pack(self, records: int, block_ids: int, count: int, record_bytes: int, packed: int, stream: Stream) -> None:
        """Enqueues: `count` records, by ids at the pointer `block_ids`, become one contiguous run at `packed`."""

    def unpack(self, records: int, block_ids: int, count: int, record_bytes: int, packed: int, stream: Stream) -> None:
        """Enqueues: the contiguous run at `packed` goes to the records' places."""

    def pack_heads(
        self, records: int, block_ids: int, count: int, rows: RecordRows, packed: int, stream: Stream
    ) -> None:
        """As `pack`, of each record these rows only."""

    def unpack_heads(
        self, records: int, block_ids: int, count: int, rows: RecordRows, packed: int, stream: Stream
    ) -> None:
        """As `unpack`; the rest of the records stays as it is."""

    def checksummer(self, pointer: int, record_bytes: int) -> Callable[[Sequence[int]], tuple[int, ...]]:
        """What computes XXH3-64 of records at `pointer`, by id."""

    def record(self, stream: Stream) -> Event:
        """Complete when all that was enqueued before is."""

    def wait(self, stream: Stream, event: Event) -> None:
        """What is enqueued on the stream after this waits, on the device, for the event."""

    def synchronize(self, event: Event) -> None:
        """Blocks until the event is complete, without the interpreter lock."""
