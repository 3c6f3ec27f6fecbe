"""Which KV heads go from which rank to which, between instances of different tensor parallelism; and where they lie.

Each rank holds the `rank`th of equal parts of the KV heads. With 4 heads, from 2 ranks to 4 and to 1:

    rank 0: heads 0 1  --> rank 0: 0          rank 0: heads 0 1  --> rank 0: 0 1
                       \\-> rank 1: 1          rank 1: heads 2 3  --------->   2 3
    rank 1: heads 2 3  --> rank 2: 2
                       \\-> rank 3: 3
"""

from dataclasses import dataclass
from itertools import pairwise

from cluster.links.record_shape import HeadRange


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


def piece(num_kv_heads: int, source: tuple[int, int], target: tuple[int, int]) -> tuple[Piece, int, int] | None:
    """Between two (rank, number of ranks); which it is of those that come to that target rank, and of how many.

    None: they have no head in common.
    """
    arriving = [each for each in pieces(num_kv_heads, source[1], target[1]) if each.target_rank == target[0]]
    found = next((index for index, each in enumerate(arriving) if each.source_rank == source[0]), None)
    return None if found is None else (arriving[found], found, len(arriving))
