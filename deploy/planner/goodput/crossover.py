"""At which bandwidth between nodes the best plan becomes another one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from cluster.topology.topology import Topology
from deploy.planner.goodput.plans import Plan
from deploy.planner.goodput.unit import Unit

NO_BANDWIDTH, ANY_BANDWIDTH = 1.0, 1e15
"""bytes/s: as good as none, and as good as without end."""

PlanAt = Callable[[float], Plan | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class At:
    """What is best with so many bytes/s between nodes; `unit` None: nothing meets the SLOs."""

    bytes_per_s: float
    unit: Unit | None
    per_gpu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossover:
    """Between `low` and `high` the best plan changes."""

    low: At
    high: At


def with_bandwidth(topology: Topology, bytes_per_s: float) -> Topology:
    """The same nodes with links of one bandwidth between them, and no other limit; within nodes nothing changes."""
    same = np.eye(len(topology), dtype=bool)
    nodes = [replace(node, egress_bytes_per_s=None, ingress_bytes_per_s=None) for node in topology.nodes]
    beta = np.where(same, topology.beta_bytes_per_s, bytes_per_s)
    return Topology(nodes, topology.alpha_s, beta, topology.residual)


def sweep(plan_at: PlanAt, bandwidths: Sequence[float], *, precision: float = 1.25) -> list[At]:
    """At these, and at as many between two with different plans as it takes to know where they change."""
    found = {each: _at(plan_at, each) for each in sorted(bandwidths)}
    for low, high in pairwise(sorted(bandwidths)):
        while _changes(found[low], found[high]) and high > low * precision:
            middle = (low * high) ** 0.5
            found[middle] = _at(plan_at, middle)
            if _changes(found[low], found[middle]):
                high = middle
            else:
                low = middle
    return [found[each] for each in sorted(found)]


def crossovers(swept: Sequence[At]) -> list[Crossover]:
    return [Crossover(low=low, high=high) for low, high in pairwise(swept) if _changes(low, high)]


def _changes(one: At, other: At) -> bool:
    """Another split of roles and parallelisms; not merely other numbers of instances."""
    return (one.unit and one.unit.split) != (other.unit and other.unit.split)


def _at(plan_at: PlanAt, bytes_per_s: float) -> At:
    plan = plan_at(bytes_per_s)
    return At(bytes_per_s=bytes_per_s, unit=plan.whole if plan else None, per_gpu=plan.per_gpu if plan else 0.0)
