"""What may be built: pools of instances that are alike, and several of them that serve together."""

from dataclasses import dataclass, replace
from typing import Literal

from cluster.latency.hardware import Parallelism

Role = Literal["prefill", "decode", "mixed"]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class PoolPlan:
    """`kind`: the name of the hardware it runs on. `token_budget`: of a step; None: what the role's policy says."""

    role: Role
    parallelism: Parallelism
    num_instances: int = 1
    kind: str = ""
    token_budget: int | None = None

    @property
    def num_gpus(self) -> int:
        return self.num_instances * self.parallelism.num_gpus

    @property
    def one(self) -> "PoolPlan":
        return replace(self, num_instances=1)

    def __str__(self) -> str:
        budget = f" ({self.token_budget} tokens a step)" if self.token_budget else ""
        return f"{self.num_instances} × {self.role} {self.parallelism}{budget}"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Unit:
    """Pools that serve together: prefill and decode, or mixed ones."""

    pools: tuple[PoolPlan, ...]

    @property
    def num_gpus(self) -> int:
        return sum(pool.num_gpus for pool in self.pools)

    @property
    def is_mixed(self) -> bool:
        return all(pool.role == "mixed" for pool in self.pools)

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(pool.kind for pool in self.pools))

    @property
    def has_pp(self) -> bool:
        return any(pool.parallelism.pp > 1 for pool in self.pools)

    @property
    def split(self) -> tuple[PoolPlan, ...]:
        """Roles and parallelisms without their numbers and budgets."""
        return tuple(replace(pool, num_instances=1, token_budget=None) for pool in self.pools)

    def times(self, copies: int) -> "Unit":
        return Unit(pools=tuple(replace(pool, num_instances=pool.num_instances * copies) for pool in self.pools))

    def __str__(self) -> str:
        has_kinds = len(self.kinds) > 1
        return " + ".join(f"{pool} on {pool.kind}" if has_kinds else str(pool) for pool in self.pools)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Copies:
    """A unit, so often."""

    unit: Unit
    number: int


def join(units: list[Unit]) -> Unit:
    """All of them as one: pools that are alike but for their number become one."""
    numbers: dict[PoolPlan, int] = {}
    for unit in units:
        for pool in unit.pools:
            numbers[pool.one] = numbers.get(pool.one, 0) + pool.num_instances
    return Unit(pools=tuple(replace(pool, num_instances=number) for pool, number in numbers.items() if number))


def disaggregated(prefill: PoolPlan, decode: PoolPlan) -> Unit:
    return Unit(pools=(prefill, decode))
