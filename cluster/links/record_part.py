"""What one link moves of every record: all of it, or, between ranks of different tensor parallelism, some heads."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cluster.links.errors import LinkError
from cluster.links.link_end import LinkEnd
from cluster.links.record_shape import HeadRange, Record, RecordRows, RecordShape, gather, scatter
from cluster.links.reshard import piece, pieces

if TYPE_CHECKING:
    from cluster.links.device_region import Region

NO_HEADS = HeadRange(start=0, count=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordPart:
    """At one end. It is the `index`th of `num_parts` that come to each record of the target.

    `num_bytes`: of each record. `shape` None: whole records, as they are.
    """

    num_bytes: int
    shape: RecordShape | None = None
    heads: HeadRange = NO_HEADS
    index: int = 0
    num_parts: int = 1

    def gather(self, records: Sequence[Record]) -> list[Record]:
        """As bytes without gaps; the records themselves if that is all there is in them."""
        return list(records) if self.shape is None else gather(self.shape, records, self.heads)

    def room(self, num_records: int) -> list[Record]:
        """For what `gather` gives of so many."""
        return list(np.empty((num_records, self.num_bytes), np.uint8))

    def copy(self, record: Record, gathered: Record) -> None:
        """Of one record, to where there is room for it."""
        if self.shape is None:
            gathered[:] = record
        else:
            rows = self.shape.rows(record, self.heads)
            gathered.reshape(rows.shape)[:] = rows

    def scatter(self, record: Record, gathered: Record) -> None:
        if self.shape is None:
            record[:] = gathered
        else:
            scatter(self.shape, record, self.heads, gathered)

    @property
    def rows(self) -> RecordRows:
        """Where it lies in a record."""
        if self.shape is not None:
            return self.shape.strided(self.heads)
        return RecordRows(record_bytes=self.num_bytes, num_rows=1, pitch=self.num_bytes, first=0, width=self.num_bytes)

    @property
    def is_whole(self) -> bool:
        """Whether what is gathered is the record itself."""
        return self.shape is None or self.shape.is_whole(self.heads)


def source_part(region: "Region", source: LinkEnd, receiver: LinkEnd) -> RecordPart:
    """Of the source's records, at the source. Raises LinkError where nothing can be moved."""
    return _part(region.record_bytes, region.shape, source, source, receiver)


def target_part(region: "Region", source: LinkEnd, receiver: LinkEnd) -> RecordPart:
    """Of the receiver's records, at the receiver. Raises LinkError where nothing can be moved."""
    return _part(region.record_bytes, region.shape, receiver, source, receiver)


def mapped_part(region: "Region", source: LinkEnd, receiver: LinkEnd) -> RecordPart:
    """Of the source's records, at the receiver, which sees them. Raises LinkError where nothing can be moved."""
    shape, record_bytes = region.shape, region.record_bytes * receiver.num_ranks // source.num_ranks
    if shape is not None:
        shape = replace(shape, num_heads=shape.num_heads * receiver.num_ranks // source.num_ranks)
    return _part(record_bytes, shape, source, source, receiver)


def target_ranks(region: "Region", source: LinkEnd, num_ranks: int) -> list[int]:
    """Of so many, those that hold heads that this source holds; none where nothing can be moved."""
    if source.num_ranks == num_ranks:
        return [source.rank]
    if (shape := region.shape) is None or shape.num_heads * source.num_ranks % num_ranks:
        return []
    every = pieces(shape.num_heads * source.num_ranks, source.num_ranks, num_ranks)
    return [each.target_rank for each in every if each.source_rank == source.rank]


def _part(record_bytes: int, shape: RecordShape | None, own: LinkEnd, source: LinkEnd, receiver: LinkEnd) -> RecordPart:
    if source.num_ranks == receiver.num_ranks:
        if source.rank != receiver.rank:
            raise _nothing_shared(source, receiver)
        return RecordPart(num_bytes=record_bytes)
    if shape is None:
        raise LinkError(f"KV of {source.num_ranks} ranks cannot be moved to {receiver.num_ranks} in this memory")
    ends = (source.rank, source.num_ranks), (receiver.rank, receiver.num_ranks)
    try:
        found = piece(shape.num_heads * own.num_ranks, *ends)
    except ValueError as error:
        raise LinkError(str(error)) from error
    if found is None:
        raise _nothing_shared(source, receiver)
    moved, index, num_parts = found
    heads = moved.source if own is source else moved.target
    return RecordPart(num_bytes=shape.num_bytes(heads), shape=shape, heads=heads, index=index, num_parts=num_parts)


def _nothing_shared(source: LinkEnd, receiver: LinkEnd) -> LinkError:
    return LinkError(
        f"rank {source.rank} of {source.num_ranks} and rank {receiver.rank} of {receiver.num_ranks} share no KV head"
    )
