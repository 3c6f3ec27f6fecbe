"""What is believed of each link, as it is shown: in status, in metrics, and at the end of `baton probe`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from cluster.pb import baton_pb2
from cluster.topology.schedule import Pair
from cluster.topology.topology import Node, Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRow:
    """Of one direction. `state`: unknown, good, degraded or unreachable; rates are 0 where nothing is known."""

    pair: Pair
    state: str
    transport: str = ""
    alpha_s: float = 0.0
    beta_bytes_per_s: float = 0.0
    residual: float = 0.0
    num_samples: int = 0
    age_s: float = 0.0
    is_stale: bool = False
    num_connections: int = 0
    error: str = ""

    def probed(self, error: str, is_broken: bool) -> Self:
        """With why the last probe failed."""
        return replace(self, error=error, state="unreachable" if is_broken else self.state)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """`num_known_links`: from here to other nodes; `median_bytes_per_s`: of these, 0 where there are none."""

    node: Node
    instances: tuple[str, ...]
    num_known_links: int = 0
    median_bytes_per_s: float = 0.0


def node_rows(nodes: Iterable[Node], instances: Mapping[str, Iterable[str]], topology: Topology) -> list[NodeRow]:
    """`instances` by node; `topology` need not have all nodes."""
    rates = {}
    for at, node in enumerate(topology.nodes):
        others = np.delete(topology.beta_bytes_per_s[at], at)
        rates[node.name] = others[np.isfinite(others)]
    unknown = np.empty(0)
    return [
        NodeRow(
            node=node,
            instances=tuple(sorted(instances.get(node.name, ()))),
            num_known_links=len(known := rates.get(node.name, unknown)),
            median_bytes_per_s=float(np.median(known)) if len(known) else 0.0,
        )
        for node in nodes
    ]


def link_rows_to_pb(rows: Iterable[LinkRow]) -> list[baton_pb2.NodeLinkStatus]:
    return [
        baton_pb2.NodeLinkStatus(
            source_node=row.pair[0],
            target_node=row.pair[1],
            transport=row.transport,
            alpha_s=row.alpha_s,
            beta_bytes_per_s=row.beta_bytes_per_s,
            residual=row.residual,
            state=row.state,
            num_samples=row.num_samples,
            age_s=row.age_s,
            is_stale=row.is_stale,
            num_connections=row.num_connections,
            error=row.error,
        )
        for row in rows
    ]


def node_rows_to_pb(rows: Iterable[NodeRow]) -> list[baton_pb2.NodeStatus]:
    return [
        baton_pb2.NodeStatus(
            node=row.node.name,
            group=row.node.group,
            instances=row.instances,
            egress_bytes_per_s=row.node.egress_bytes_per_s or 0.0,
            ingress_bytes_per_s=row.node.ingress_bytes_per_s or 0.0,
            num_gpus=row.node.num_gpus,
            num_cpus=row.node.num_cpus or 0.0,
            memory_bytes=row.node.memory_bytes or 0,
            gpu_memory_bytes=row.node.gpu_memory_bytes or 0,
            num_known_links=row.num_known_links,
            median_link_bytes_per_s=row.median_bytes_per_s,
        )
        for row in rows
    ]
