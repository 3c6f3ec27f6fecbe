"""KV memory as links see it: records of one size, one per block."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from cluster.links.record_shape import Record, RecordShape

MAX_BATCH_BYTES = 16 << 20  # docs/measurements/links-cpu.md
MAX_BATCH_RECORDS = 1024  # IOV_MAX


def checksum(record: Record) -> int:
    """XXH3-64 of one record."""
    return xxhash.xxh3_64_intdigest(record)  # type: ignore[arg-type]  # numpy says so only from Python 3.12 on


def batches(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """As many at a time as go into one system call: each one less is a wake-up less."""
    size = min(max(1, MAX_BATCH_BYTES // records[0].nbytes), MAX_BATCH_RECORDS) if records else 1
    for start in range(0, len(records), size):
        yield records[start : start + size]


class KvRegion:
    """Numpy's views, not memoryviews: copying between them leaves the interpreter lock to the engine's thread."""

    def __init__(self, buffer: memoryview, record_bytes: int, path: str = "", shape: RecordShape | None = None) -> None:
        """`buffer`: [num_records * record_bytes] bytes; `path`, if any: where others on this host can map it from.

        `shape`: where heads lie in a record, for those who need some of them only.
        """
        if record_bytes <= 0 or buffer.nbytes % record_bytes:
            raise ValueError(f"{buffer.nbytes} bytes are not records of {record_bytes} bytes")
        self.records: NDArray[np.uint8] = np.frombuffer(buffer, np.uint8).reshape(-1, record_bytes)
        self.record_bytes = record_bytes
        self.num_bytes = buffer.nbytes
        self.path = path
        self.shape = shape

    def checksums(self, block_ids: Iterable[int]) -> tuple[int, ...]:
        return tuple(checksum(self.records[block_id]) for block_id in block_ids)
