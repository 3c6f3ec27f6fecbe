"""What several seeds say, and how far from it others would be."""

from dataclasses import dataclass
from math import sqrt
from statistics import mean, stdev


@dataclass(frozen=True, slots=True)
class Spread:
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return mean(self.values)

    @property
    def standard_error(self) -> float:
        return stdev(self.values) / sqrt(len(self.values))

    def over(self, other: "Spread") -> "Spread":
        """Ratios, seed by seed: both had the same requests."""
        return Spread(tuple(one / two for one, two in zip(self.values, other.values, strict=True)))

    def __str__(self) -> str:
        return f"{self.mean:.3g} ± {self.standard_error:.2g}"
