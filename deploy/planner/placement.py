"""What is to be placed, where, and what came of it: the values that the placement's files pass to each other."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
"""[num_pools, num_nodes]: how many instances of a pool are on a node. Those of a pool are all alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolNeeds:
    """`num_gpus`, `num_cpus` and the memories are of each instance; below 1 it shares a GPU. A rank a GPU."""

    name: str
    role: Literal["prefill", "decode", "mixed"]
    num_instances: int
    num_gpus: float = 0.0
    num_cpus: float = 0.0
    memory_bytes: int = 0
    gpu_memory_bytes: int = 0

    @property
    def can_prefill(self) -> bool:
        return self.role != "decode"

    @property
    def can_decode(self) -> bool:
        return self.role != "prefill"


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What is expected to flow: every prefill instance sends to every decode instance equally often.

    `request_bytes`: of KV that a request moves. `num_in_flight`: transfers that a prefill instance has under way on the
    average (at most 1): 0 predicts each transfer alone.
    """

    request_bytes: float
    num_in_flight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    instance: str
    node: str
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """An instance that runs: on which node, and as one of which pool, which is another than its own after a flip."""

    instance: str
    pool: str
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """`cost_s`: the mean predicted time of a transfer from prefill to decode; none can be below `lower_bound_s`.

    `is_exact`: all were compared, so that it is the best one; then `lower_bound_s` is its own cost.
    """

    instances: tuple[Placed, ...]
    counts: Counts
    cost_s: float
    lower_bound_s: float
    is_exact: bool

    @property
    def gap(self) -> float:
        """How much of its cost, at most, another placement could save."""
        return 1.0 - self.lower_bound_s / self.cost_s if self.cost_s > 0.0 else 0.0


class NoRoom(ValueError):
    """A pool fits nowhere: which constraint, and by how much. `pool` is its name, `field` the YAML field of it."""

    def __init__(self, pool: str, field: str, message: str) -> None:
        super().__init__(message)
        self.pool, self.field = pool, field
