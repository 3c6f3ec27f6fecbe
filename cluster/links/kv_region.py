"""KV memory as links see it: records of one size, one per block."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import xxhash

# Runs longer than this are moved in pieces: a piece is hashed while it is still in the cache.
MAX_RUN_BYTES = 1 << 20


def checksum(record: memoryview) -> int:
    """XXH3-64 of one record."""
    return xxhash.xxh3_64_intdigest(record)


@dataclass(frozen=True, slots=True, kw_only=True)
class KvRegion:
    """`buffer` is [num_records * record_bytes] bytes; `path`, if any, is where others on this host can map it from."""

    buffer: memoryview
    record_bytes: int
    path: str = ""

    def __post_init__(self) -> None:
        if self.record_bytes <= 0 or self.buffer.nbytes % self.record_bytes or self.buffer.format != "B":
            raise ValueError(
                f"{self.buffer.nbytes} bytes ({self.buffer.format}) are not records of {self.record_bytes}"
            )

    @property
    def num_records(self) -> int:
        return self.buffer.nbytes // self.record_bytes

    def records(self, block_id: int, count: int = 1) -> memoryview:
        """The memory of blocks [block_id, block_id + count)."""
        return self.buffer[block_id * self.record_bytes : (block_id + count) * self.record_bytes]

    def checksums(self, block_ids: Sequence[int]) -> tuple[int, ...]:
        return tuple(checksum(self.records(block_id)) for block_id in block_ids)

    def runs(self, *block_ids: Sequence[int]) -> Iterator[tuple[int, int]]:
        """(index, count) of stretches that are contiguous in every one of these equally long lists of blocks."""
        most = max(1, MAX_RUN_BYTES // self.record_bytes)
        start, length = 0, len(block_ids[0])
        for index in range(1, length + 1):
            breaks = index == length or any(ids[index] != ids[index - 1] + 1 for ids in block_ids)
            if breaks or index - start == most:
                yield start, index - start
                start = index
