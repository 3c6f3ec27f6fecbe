"""Whether instances fit on a node, and what is missing when they fit nowhere."""

from collections.abc import Callable, Sequence
from math import floor, inf

import numpy as np

from cluster.spec.quantity import format_bytes, format_count
from cluster.topology.topology import Node
from deploy.planner.placement import Counts, NoRoom, PoolNeeds, Seat

_ROUNDING = 1e-9


class Room:
    """Of all nodes, for these pools. Whole GPUs belong to one instance; below 1, instances of one pool share a GPU."""

    def __init__(self, pools: Sequence[PoolNeeds], nodes: Sequence[Node]) -> None:
        self.pools, self.nodes = tuple(pools), tuple(nodes)
        self._per_gpu = [_per_gpu(pool) for pool in pools]
        self._kinds: dict[tuple[object, ...], Node] = {}
        self.kind_of = [_kind(node) for node in nodes]
        for node, kind in zip(nodes, self.kind_of, strict=True):
            self._kinds.setdefault(kind, node)
        self._known: dict[tuple[object, ...], bool] = {}
        # [num_pools, num_nodes]: how many fit when nothing else is there.
        by_kind = {kind: [self._most(at, node) for at in range(len(pools))] for kind, node in self._kinds.items()}
        self.most: Counts = np.array([by_kind[kind] for kind in self.kind_of], np.int64).T.reshape(len(pools), -1)

    def counts(self, seats: Sequence[Seat]) -> Counts:
        """How many of each pool are on each node; ValueError for a pool or a node that is not there."""
        pools = {pool.name: at for at, pool in enumerate(self.pools)}
        nodes = {node.name: at for at, node in enumerate(self.nodes)}
        counts = np.zeros(self.most.shape, np.int64)
        for seat in seats:
            if seat.pool not in pools or seat.node not in nodes:
                raise ValueError(f"{seat.instance} is one of {seat.pool} on {seat.node}, which is not there")
            counts[pools[seat.pool], nodes[seat.node]] += 1
        return counts

    def fits(self, node: int, counts: Sequence[int]) -> bool:
        """`counts`: of each pool, on that node."""
        key = (self.kind_of[node], *(int(count) for count in counts))
        if key not in self._known:
            self._known[key] = self._is_room(self.nodes[node], key[1:])  # type: ignore[arg-type]
        return self._known[key]

    def with_one(self, pool: int, other: int) -> Counts:
        """[num_nodes]: how many of a pool fit on a node beside one instance of the other."""
        beside: dict[tuple[object, ...], int] = {}
        for kind in self._kinds:
            at = self.kind_of.index(kind)
            counts = [0] * len(self.pools)
            counts[other] += 1
            number = 0
            while number < self.pools[pool].num_instances:
                counts[pool] += 1
                if not self.fits(at, counts):
                    break
                number += 1
            beside[kind] = number
        return np.array([beside[kind] for kind in self.kind_of], np.int64)

    def check(self) -> None:
        """NoRoom for what no assignment could mend; pools that fit one by one may still not fit together."""
        for at, pool in enumerate(self.pools):
            if not self.most[at].any():
                raise NoRoom(pool.name, *self._why_nowhere(pool))
            if self.most[at].sum() < pool.num_instances:
                raise NoRoom(
                    pool.name,
                    "replicas",
                    f"is {pool.num_instances}; the nodes have room for {self.most[at].sum()} "
                    f"({pool.num_instances - self.most[at].sum()} too many)",
                )
        self._check_totals()

    def does_not_fit_together(self, pool: int, num_placed: int) -> NoRoom:
        """When an assignment was looked for, and the last of a pool found no node."""
        wanted = self.pools[pool].num_instances
        return NoRoom(
            self.pools[pool].name,
            "replicas",
            f"is {wanted}; beside the other pools only {num_placed} found room ({wanted - num_placed} too many)",
        )

    def _check_totals(self) -> None:
        for field, needs, has in _RESOURCES:
            amounts = [has(node) for node in self.nodes]
            needed = sum(needs(pool) * pool.num_instances for pool in self.pools)
            if (available := sum(amounts)) + _ROUNDING < needed and field != "gpu_memory":
                pool = max(self.pools, key=lambda pool: needs(pool) * pool.num_instances)
                raise NoRoom(
                    pool.name,
                    field,
                    f"all pools together need {_amount(field, needed)}, the nodes have {_amount(field, available)} "
                    f"({_amount(field, needed - available)} short)",
                )

    def _why_nowhere(self, pool: PoolNeeds) -> tuple[str, str]:
        """(field, message): the first constraint that no node meets."""
        for field, needs, has in _RESOURCES:
            best = max(self.nodes, key=has)
            if has(best) + _ROUNDING < needs(pool):
                short = _amount(field, needs(pool) - has(best))
                return field, (
                    f"an instance needs {_amount(field, needs(pool))}; the node with most, {best.name}, "
                    f"has {_amount(field, has(best))} ({short} short)"
                )
        return "replicas", "no node has all that an instance needs at once, though each part of it is somewhere"

    def _most(self, pool: int, node: Node) -> int:
        counts = [0] * len(self.pools)
        for number in range(1, self.pools[pool].num_instances + 1):
            counts[pool] = number
            if not self._is_room(node, counts):
                return number - 1
        return self.pools[pool].num_instances

    def _is_room(self, node: Node, counts: Sequence[int]) -> bool:
        gpus = cpus = memory = 0.0
        for pool, count, per_gpu in zip(self.pools, counts, self._per_gpu, strict=True):
            if not count:
                continue
            if node.gpu_memory_bytes is not None and pool.gpu_memory_bytes > node.gpu_memory_bytes:
                return False
            sharing = per_gpu
            if pool.num_gpus < 1 and node.gpu_memory_bytes is not None and pool.gpu_memory_bytes:
                sharing = min(sharing, node.gpu_memory_bytes // pool.gpu_memory_bytes)
            gpus += -(-count // sharing) if 0 < pool.num_gpus < 1 else count * pool.num_gpus
            cpus += count * pool.num_cpus
            memory += count * pool.memory_bytes
        has_cpus, has_memory = (inf if has is None else has for has in (node.num_cpus, node.memory_bytes))
        return gpus <= node.num_gpus + _ROUNDING and cpus <= has_cpus + _ROUNDING and memory <= has_memory


def _per_gpu(pool: PoolNeeds) -> int:
    """How many share a GPU."""
    return floor(1.0 / pool.num_gpus + _ROUNDING) if 0 < pool.num_gpus < 1 else 1


def _kind(node: Node) -> tuple[object, ...]:
    return (node.num_gpus, node.num_cpus, node.memory_bytes, node.gpu_memory_bytes)


def _amount(field: str, amount: float) -> str:
    if field in ("memory", "gpu_memory"):
        return format_bytes(amount)
    return format_count(amount, {"gpus": "GPU", "cpus": "CPU"}[field])


def _or_inf(amount: float | None) -> float:
    return inf if amount is None else amount


# The field of a pool's resources, what an instance needs of it, what a node has.
_RESOURCES: tuple[tuple[str, Callable[[PoolNeeds], float], Callable[[Node], float]], ...] = (
    ("gpus", lambda pool: pool.num_gpus, lambda node: float(node.num_gpus)),
    ("cpus", lambda pool: pool.num_cpus, lambda node: _or_inf(node.num_cpus)),
    ("memory", lambda pool: float(pool.memory_bytes), lambda node: _or_inf(node.memory_bytes)),
    ("gpu_memory", lambda pool: float(pool.gpu_memory_bytes), lambda node: _or_inf(node.gpu_memory_bytes)),
)
