"""Where heads lie in a record: [2 (k, v), num_layers, block_size, the heads of one rank, head_dim], seen as bytes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Record = NDArray[np.uint8]  # [record_bytes]
Rows = NDArray[np.uint8]  # [2 * num_layers * block_size, bytes of some heads]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRange:
    """Heads [start, start + count) of those that a rank holds."""

    start: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordRows:
    """Some of a record: `num_rows` rows of `width` bytes, from byte `first` on, `pitch` bytes from one to the next."""

    record_bytes: int
    num_rows: int
    pitch: int
    first: int
    width: int

    @property
    def num_bytes(self) -> int:
        return self.num_rows * self.width

    def cut(self, most_bytes: int) -> Iterator["RecordRows"]:
        """In order, of at most so many bytes each, or a single row."""
        most = max(1, most_bytes // self.width)
        for row in range(0, self.num_rows, most):
            num_rows = min(most, self.num_rows - row)
            yield replace(self, first=self.first + row * self.pitch, num_rows=num_rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordShape:
    """Of one block on one rank. `num_rows`: 2 * num_layers * block_size; `head_bytes`: of one head of one token.

    `dtype`: of the numbers, such as "bfloat16"; empty: not told.
    """

    num_rows: int
    num_heads: int
    head_bytes: int
    dtype: str = ""

    @property
    def record_bytes(self) -> int:
        return self.num_rows * self.num_heads * self.head_bytes

    def num_bytes(self, heads: HeadRange) -> int:
        return self.num_rows * heads.count * self.head_bytes

    def is_whole(self, heads: HeadRange) -> bool:
        return heads.count == self.num_heads

    def strided(self, heads: HeadRange) -> RecordRows:
        """Where they lie."""
        pitch = self.num_heads * self.head_bytes
        first, width = heads.start * self.head_bytes, heads.count * self.head_bytes
        return RecordRows(record_bytes=self.record_bytes, num_rows=self.num_rows, pitch=pitch, first=first, width=width)

    def rows(self, record: Record, heads: HeadRange) -> Rows:
        """A view: writing to it writes to the record."""
        table = record.reshape(self.num_rows, self.num_heads * self.head_bytes)
        return table[:, heads.start * self.head_bytes : (heads.start + heads.count) * self.head_bytes]


def gather(shape: RecordShape, records: Sequence[Record], heads: HeadRange) -> list[Record]:
    """These heads of each record, as bytes without gaps; the records themselves if that is all there is in them."""
    if shape.is_whole(heads):
        return list(records)
    gathered = np.empty((len(records), shape.num_bytes(heads)), np.uint8)
    for buffer, record in zip(gathered, records, strict=True):
        rows = shape.rows(record, heads)
        buffer.reshape(rows.shape)[:] = rows
    return list(gathered)


def scatter(shape: RecordShape, record: Record, heads: HeadRange, gathered: Record) -> None:
    """The other way: these heads of the record become what `gather` gave elsewhere."""
    rows = shape.rows(record, heads)
    rows[:] = gathered.reshape(rows.shape)
