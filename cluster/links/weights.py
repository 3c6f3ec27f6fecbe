"""Weights as they go from an instance that runs to one that starts: which they are, and who has them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsPart:
    """What `rank` of `num_ranks` holds of a model. `model`: a fingerprint of its checkpoint; `dtype`: as loaded."""

    model: str
    dtype: str
    rank: int = 0
    num_ranks: int = 1


class WeightsSource(Protocol):
    """Of an instance that runs. Called from links' threads."""

    @property
    def part(self) -> WeightsPart: ...

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of every tensor, by its name in the checkpoint."""
        ...

    def pieces(self, name: str, piece_bytes: int) -> Iterator[memoryview]:
        """The tensor's bytes, so many at a time; each piece is good until the next one is asked for."""
        ...
