"""A unit's instances on nodes: put there by the placement, for the least time from prefill to decode."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cluster.topology.topology import Topology
from deploy.planner.goodput.unit import PoolPlan, Unit, join
from deploy.planner.placement import NoRoom, Placed, PoolNeeds, Traffic
from deploy.planner.planner import Planner


@dataclass(frozen=True, slots=True, kw_only=True)
class Seated:
    """`pool`: what it is one of."""

    name: str
    pool: PoolPlan
    node: str
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """`topology`: of the nodes that hold something, and no others."""

    unit: Unit
    seats: tuple[Seated, ...]
    topology: Topology

    @property
    def num_nodes(self) -> int:
        return len(self.topology)

    def per_node(self) -> dict[str, Counter[PoolPlan]]:
        found: dict[str, Counter[PoolPlan]] = {}
        for seat in self.seats:
            found.setdefault(seat.node, Counter())[seat.pool.one] += 1
        return found


class Ground:
    """The nodes that there are, which of them are of which kind, and what a request's KV weighs on them."""

    def __init__(self, topology: Topology, kinds: Mapping[str, str], request_bytes: float) -> None:
        self.topology, self.kinds, self._request_bytes = topology, kinds, request_bytes

    def among(self, nodes: Sequence[str]) -> "Ground":
        return Ground(sub_topology(self.topology, nodes), self.kinds, self._request_bytes)

    def lay_out(self, unit: Unit, *, label_free: bool = False) -> Layout | None:
        """None: there is no room. Of several kinds, each is placed by itself. `label_free`: not knowing links."""
        placed: list[tuple[PoolPlan, Placed]] = []
        for kind in unit.kinds:
            nodes = [node.name for node in self.topology.nodes if self.kinds[node.name] == kind or not kind]
            found = self._place([pool for pool in unit.pools if pool.kind == kind], nodes, label_free=label_free)
            if found is None:
                return None
            placed += found
        return self._layout(unit, [Seated(name="", pool=pool.one, node=at.node, gpus=at.gpus) for pool, at in placed])

    def pack(self, unit: Unit, copies: int) -> Layout | None:
        """Copies side by side, each on as few nodes as hold it; so many as there is room for. None: for none.

        Of units that want several kinds of nodes, each kind is placed by itself.
        """
        if len(unit.kinds) > 1:
            found = (self.lay_out(unit.times(number)) for number in range(copies, 0, -1))
            return next((layout for layout in found if layout is not None), None)
        nodes = [node.name for node in self.topology.nodes]
        size = min(node.num_gpus for node in self.topology.nodes)
        width, together = -(-unit.num_gpus // size), max(1, size // unit.num_gpus)
        blocks: list[Layout] = []
        for start in range(0, len(nodes) - width + 1, width):
            if not copies:
                break
            block = self.among(nodes[start : start + width]).lay_out(unit.times(min(together, copies)))
            if block is None:
                break
            blocks.append(block)
            copies -= min(together, copies)
        return self.side_by_side(blocks) if blocks else None

    def side_by_side(self, layouts: Sequence[Layout]) -> Layout:
        """All of them as one, on these nodes."""
        return self._layout(join([layout.unit for layout in layouts]), [it for each in layouts for it in each.seats])

    def _layout(self, unit: Unit, seats: Sequence[Seated]) -> Layout:
        """Named anew, those of each role in the order given."""
        numbers: Counter[str] = Counter()
        named = []
        for seat in seats:
            named.append(replace(seat, name=f"{seat.pool.role}-{numbers[seat.pool.role]}"))
            numbers[seat.pool.role] += 1
        used = {seat.node for seat in seats}
        names = [node.name for node in self.topology.nodes if node.name in used]
        return Layout(unit=unit, seats=tuple(named), topology=sub_topology(self.topology, names))

    def _place(
        self, pools: Sequence[PoolPlan], nodes: Sequence[str], *, label_free: bool
    ) -> list[tuple[PoolPlan, Placed]] | None:
        needs = [
            PoolNeeds(
                name=f"pool{at}",
                role=pool.role,
                num_instances=pool.num_instances,
                num_gpus=float(pool.parallelism.num_gpus),
            )
            for at, pool in enumerate(pools)
        ]
        if not nodes:
            return None
        if not all(any(getattr(need, can) for need in needs) for can in ("can_prefill", "can_decode")):
            return self._one_role(pools, nodes)  # the others are elsewhere
        traffic = Traffic(request_bytes=self._request_bytes)
        try:
            planner = Planner(needs, sub_topology(self.topology, nodes), traffic, np.random.default_rng(0))
            plan = planner.plan(with_worst=False)
        except NoRoom:
            return None
        chosen = plan.label_free if label_free else plan.chosen
        if chosen is None:
            return None
        return [(pools[int(at.instance.split("-")[0].removeprefix("pool"))], at) for at in chosen.instances]

    def _one_role(self, pools: Sequence[PoolPlan], nodes: Sequence[str]) -> list[tuple[PoolPlan, Placed]] | None:
        """Evenly: each on the node with most that is free."""
        free = {name: self.topology.node(name).num_gpus for name in nodes}
        found = []
        for pool in pools:
            for _ in range(pool.num_instances):
                node = max(free, key=lambda name: free[name])
                if free[node] < pool.parallelism.num_gpus:
                    return None
                first = self.topology.node(node).num_gpus - free[node]
                gpus = tuple(range(first, first + pool.parallelism.num_gpus))
                free[node] -= pool.parallelism.num_gpus
                found.append((pool, Placed(instance="", node=node, gpus=gpus)))
        return found


def sub_topology(topology: Topology, names: Sequence[str]) -> Topology:
    """Of these nodes, in this order."""
    at = [topology.index(name) for name in names]
    block = np.ix_(at, at)
    matrices = (topology.alpha_s[block], topology.beta_bytes_per_s[block], topology.residual[block])
    return Topology([topology.nodes[index] for index in at], *matrices)
