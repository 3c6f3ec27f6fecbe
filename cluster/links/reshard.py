"""Which KV heads go from which rank to which, between instances of different tensor parallelism; and where they lie.

Each rank holds the `rank`th of equal parts of the KV heads. With 4 heads, from 2 ranks to 4 and to 1:

    rank 0: heads 0 1  --> rank 0: 0          rank 0: heads 0 1  --> rank 0: 0 1
                       \\-> rank 1: 1          rank 1: heads 2 3  --------->   2 3
    rank 1: heads 2 3  --> rank 2: 2
                       \\-> rank 3: 3

A rank's record of a block is [2 (k, v), num_layers, block_size, its heads, head_dim]: some of its heads are a column.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cluster.links.kv_region import Record

Rows = NDArray[np.uint8]  # [2 * num_layers * block_size, bytes of some heads]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRange:
    """Heads [start, start + count) of those that a rank holds."""

    start: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What one rank of the source sends to one rank of the target; `source` and `target` are the same heads."""

    source_rank: int
    target_rank: int
    source: HeadRange
    target: HeadRange


def pieces(num_kv_heads: int, source_size: int, target_size: int) -> tuple[Piece, ...]:
    """All that has to move, between instances of so many ranks each; each head once. ValueError for odd shares."""
    for size in (source_size, target_size):
        if num_kv_heads % size:
            raise ValueError(f"{size} ranks cannot share {num_kv_heads} KV heads")
    per_source, per_target = num_kv_heads // source_size, num_kv_heads // target_size
    bounds = sorted({*range(0, num_kv_heads, per_source), *range(0, num_kv_heads, per_target)})
    return tuple(
        Piece(
            source_rank=first // per_source,
            target_rank=first // per_target,
            source=HeadRange(start=first % per_source, count=last - first),
            target=HeadRange(start=first % per_target, count=last - first),
        )
        for first, last in pairwise([*bounds, num_kv_heads])
    )


def piece(num_kv_heads: int, source: tuple[int, int], target: tuple[int, int]) -> Piece | None:
    """Between two (rank, number of ranks); None: nothing."""
    every = pieces(num_kv_heads, source[1], target[1])
    return next((each for each in every if (each.source_rank, each.target_rank) == (source[0], target[0])), None)


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
