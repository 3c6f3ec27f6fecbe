"""One device with one model, as `baton profile` measured them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.latency.coefficients import CoefficientModel
from cluster.latency.fit import Residuals
from cluster.latency.hardware import Parallelism, UnknownParallelism


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedHardware:
    """Only as it was measured: `tensor_parallel_size` ranks, one stage. `device` and `dtype` are for people to read.

    `residuals`: by kind of step, as measured then.
    """

    model_name: str
    device: str
    dtype: str
    kv_bytes_per_token: float
    kv_memory_bytes: int
    coefficients: CoefficientModel
    tensor_parallel_size: int = 1
    residuals: Mapping[str, Residuals] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.device}/{self.model_name}"

    def parallelisms(self) -> list[Parallelism]:
        return [Parallelism(self.tensor_parallel_size)]

    def model(self, parallelism: Parallelism) -> CoefficientModel:
        self._check(parallelism)
        return self.coefficients

    def num_kv_tokens(self, parallelism: Parallelism) -> int:
        """In as much memory as the profile was told of."""
        self._check(parallelism)
        return int(self.kv_memory_bytes / self.kv_bytes_per_token)

    def _check(self, parallelism: Parallelism) -> None:
        [measured] = self.parallelisms()
        if parallelism != measured:
            raise UnknownParallelism(f"{self.name} was measured at {measured}; nothing is known of {parallelism}")
