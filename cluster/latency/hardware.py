"""What one kind of GPU does with one model, however many of them an instance gets."""

from dataclasses import dataclass
from typing import Protocol

from cluster.latency.latency_model import LatencyModel


@dataclass(frozen=True, slots=True, order=True)
class Parallelism:
    """`tp` ranks share each layer, `pp` stages share the layers."""

    tp: int = 1
    pp: int = 1

    @property
    def num_gpus(self) -> int:
        return self.tp * self.pp

    def __str__(self) -> str:
        return f"TP{self.tp}" + (f" PP{self.pp}" if self.pp > 1 else "")


class DoesNotFit(ValueError):
    """An instance cannot be: the text says which constraint binds, and by how much."""


class UnknownParallelism(ValueError):
    """Nothing is known of this many ranks and stages; the text lists what is."""


class Hardware(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def kv_bytes_per_token(self) -> float:
        """Of all ranks together."""
        ...

    def parallelisms(self) -> list[Parallelism]:
        """Those of which a latency model can be had, whether or not the model's weights then fit."""
        ...

    def model(self, parallelism: Parallelism) -> LatencyModel:
        """Raises UnknownParallelism."""
        ...

    def num_kv_tokens(self, parallelism: Parallelism) -> int:
        """KV of so many tokens fits beside the weights. Raises UnknownParallelism, DoesNotFit."""
        ...
