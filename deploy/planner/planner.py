"""Where every instance of a deployment should run, and what other assignments would have cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.topology.topology import Topology
from deploy.planner.bound import LowerBound
from deploy.planner.exact import find_extremes, is_small
from deploy.planner.gpus import assign_gpus
from deploy.planner.placement import Counts, Placed, Placement, PoolNeeds, Traffic
from deploy.planner.room import Room
from deploy.planner.search import improve, place_evenly, place_largest_first, place_one_by_one, shake
from deploy.planner.transfer_cost import TransferCost

_NUM_STARTS = 4
_MANY_NODES = 256
_NUM_SHAKES = 32
_SHAKEN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`label_free`: what one who knows nothing of links would do. `worst`: the worst there is, or that was found."""

    chosen: Placement
    label_free: Placement | None
    worst: Placement


class Planner:
    """NoRoom when the pools do not fit; ValueError when the topology lacks a link."""

    def __init__(
        self, pools: Sequence[PoolNeeds], topology: Topology, traffic: Traffic, rng: np.random.Generator
    ) -> None:
        self._topology, self._rng = topology, rng
        self.room = Room(pools, topology.nodes)
        self.room.check()
        self.cost = TransferCost(topology, pools, traffic)
        self._bound = LowerBound(self.cost, self.room)

    def plan(self, *, with_worst: bool = True) -> Plan:
        """`with_worst`: False saves the search for it where not all are compared; then it is the label-free one."""
        evenly = place_evenly(self.room)
        label_free = None if evenly is None else self._placement(evenly, 0.0, is_exact=False)
        if is_small(self.room):
            extremes = find_extremes(self.cost, self.room)
            if extremes is None:
                raise self._does_not_fit()
            best = self._placement(extremes.best, extremes.best_s, is_exact=True)
            return Plan(chosen=best, label_free=label_free, worst=self._placement(extremes.worst, 0.0, is_exact=True))
        chosen = self._search(evenly)
        bound_s = min(self._bound.mean_s(), self.cost.mean_s(chosen))
        start = evenly if evenly is not None else chosen
        worst = improve(self.cost, self.room, start, worsen=True) if with_worst else start
        return Plan(
            chosen=self._placement(chosen, bound_s, is_exact=False),
            label_free=label_free,
            worst=self._placement(worst, 0.0, is_exact=False),
        )

    def mean_s(self, nodes: Mapping[str, str]) -> float:
        """What an assignment costs that is there already: the node of each instance, by names."""
        pools = {pool.name: at for at, pool in enumerate(self.room.pools)}
        counts = np.zeros(self.room.most.shape, np.int64)
        for instance, node in nodes.items():
            counts[pools[instance.rsplit("-", 1)[0]], self._topology.index(node)] += 1
        return self.cost.mean_s(counts)

    def _search(self, evenly: Counts | None) -> Counts:
        """The best of several beginnings, improved; the others too where there are few nodes."""
        potentials_s = self._bound.potentials_s()
        firsts = np.argsort(potentials_s, kind="stable")
        firsts = firsts[np.linspace(0, (len(firsts) - 1) // 2, _NUM_STARTS).astype(int)]
        is_large = self.cost.num_nodes > _MANY_NODES
        starts = [
            place_one_by_one(self.cost, self.room, potentials_s, int(first))
            for first in (firsts[:1] if is_large else dict.fromkeys(firsts.tolist()))
        ]
        found = [start for start in (*starts, evenly) if start is not None]
        if is_large:
            found = sorted(found, key=self.cost.mean_s)[:1]
        if not found:
            largest_first = place_largest_first(self.room)
            if largest_first is None:
                raise self._does_not_fit()
            found = [largest_first]
        best = min((improve(self.cost, self.room, start) for start in found), key=self.cost.mean_s)
        for _ in range(0 if is_large else _NUM_SHAKES):
            shaken = shake(self.room, best, _SHAKEN, self._rng)
            best = min(best, improve(self.cost, self.room, shaken), key=self.cost.mean_s)
        return best

    def _does_not_fit(self) -> Exception:
        """Names the pool that is in the way: the largest instances are placed first, so it is one of the last."""
        pools = self.room.pools
        needs = [(pool.num_gpus, pool.memory_bytes, pool.num_cpus, at) for at, pool in enumerate(pools)]
        last = min(needs)[-1]
        return self.room.does_not_fit_together(last, self._num_beside_others(last))

    def _num_beside_others(self, last: int) -> int:
        pools = self.room.pools
        others = [pool for at, pool in enumerate(pools) if at != last]
        room = Room(others, self._topology.nodes) if others else None
        placed = place_largest_first(room) if room else None
        if placed is None:
            return 0
        number = 0
        for node in range(len(self._topology)):
            column = placed[:, node].tolist()
            column.insert(last, 1)
            while self.room.fits(node, column) and number < pools[last].num_instances:
                number += 1
                column[last] += 1
        return min(number, pools[last].num_instances - 1)

    def _placement(self, counts: Counts, lower_bound_s: float, *, is_exact: bool) -> Placement:
        return Placement(
            instances=tuple(self._instances(counts)),
            counts=counts,
            cost_s=self.cost.mean_s(counts),
            lower_bound_s=lower_bound_s,
            is_exact=is_exact,
        )

    def _instances(self, counts: Counts) -> list[Placed]:
        """Of a pool in the order of its nodes; those on one node side by side."""
        placed: list[list[Placed]] = [[] for _ in self.room.pools]
        for node, column in zip(self._topology.nodes, counts.T, strict=True):
            here = [at for at, count in enumerate(column) for _ in range(count)]
            gpus = assign_gpus(node, [self.room.pools[at].num_gpus for at in here])
            for at, chosen in zip(here, gpus, strict=True):
                name = f"{self.room.pools[at].name}-{len(placed[at])}"
                placed[at].append(Placed(instance=name, node=node.name, gpus=chosen))
        return [instance for pool in placed for instance in pool]
