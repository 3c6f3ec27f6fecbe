"""Where heads lie in a record: [2 (k, v), num_layers, block_size, the heads of one rank, head_dim], seen as bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

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
class RecordShape:
    """Of one block on one rank. `num_rows`: 2 * num_layers * block_size; `head_bytes`: of one head of one token."""

    num_rows: int
    num_heads: int
    head_bytes: int

    @property
    def record_bytes(self) -> int:
        return self.num_rows * self.num_heads * self.head_bytes

    def num_bytes(self, heads: HeadRange) -> int:
        return self.num_rows * heads.count * self.head_bytes

    def is_whole(self, heads: HeadRange) -> bool:
        return heads.count == self.num_heads

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
