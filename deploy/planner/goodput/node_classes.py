"""Nodes that are as good as each other: the same hardware, as many GPUs, links that are not much worse."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from cluster.topology.topology import Topology

_MUCH_WORSE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeClass:
    """`is_slow`: its links give less than half of what those of its kind usually do."""

    kind: str
    num_gpus: int
    is_slow: bool
    nodes: tuple[str, ...]

    @property
    def total_gpus(self) -> int:
        return self.num_gpus * len(self.nodes)


def node_classes(topology: Topology, kinds: Mapping[str, str]) -> list[NodeClass]:
    """The largest first; nodes of a rack side by side. Those without GPUs are left out."""
    rates = _usual_rates(topology)
    found: dict[tuple[str, int, bool], list[tuple[str, str]]] = {}
    for node, rate in zip(topology.nodes, rates, strict=True):
        if node.num_gpus:
            alike = [rates[at] for at, other in enumerate(topology.nodes) if kinds[other.name] == kinds[node.name]]
            is_slow = rate < _MUCH_WORSE * float(np.median(alike))
            found.setdefault((kinds[node.name], node.num_gpus, is_slow), []).append((node.group, node.name))
    classes = [
        NodeClass(kind=kind, num_gpus=num_gpus, is_slow=is_slow, nodes=tuple(name for _, name in sorted(names)))
        for (kind, num_gpus, is_slow), names in found.items()
    ]
    return sorted(classes, key=lambda each: (each.is_slow, -each.total_gpus, each.kind))


def largest_nodes(classes: Sequence[NodeClass]) -> dict[str, int]:
    """GPUs of the largest node of each kind."""
    return {each.kind: each.num_gpus for each in sorted(classes, key=lambda each: each.num_gpus)}


def _usual_rates(topology: Topology) -> list[float]:
    """Of each node: the median of its links, the worse way, within what it sends and gets in all."""
    if len(topology) == 1:
        return [inf]
    between = np.where(np.eye(len(topology), dtype=bool), np.nan, topology.beta_bytes_per_s)
    both = np.minimum(np.nanmedian(between, axis=0), np.nanmedian(between, axis=1))
    limits = [min(node.egress_bytes_per_s or inf, node.ingress_bytes_per_s or inf) for node in topology.nodes]
    return [min(float(rate), limit) for rate, limit in zip(both, limits, strict=True)]
