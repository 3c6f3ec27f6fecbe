"""The nodes of the Ray cluster that this process belongs to, as Ray describes them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import ray

from cluster.topology.topology import Node

_SHORT_ID = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class RayNode:
    """A node that is alive. `address`: its IP address; `node`: its name, and what Ray may give away there in all."""

    node_id: str
    address: str
    node: Node

    @property
    def name(self) -> str:
        return self.node.name


def alive_nodes() -> list[RayNode]:
    """By their names, which are those that Ray was given (`ray start --node-name`): without one, their addresses."""
    return named([entry for entry in cast(Any, ray).nodes() if entry["Alive"]])


def named(entries: Sequence[dict[str, Any]]) -> list[RayNode]:
    """Of entries of Ray's table. Those that share a name, as two on one host do, get it with a piece of their id."""
    shared = Counter(_name(entry) for entry in entries)
    nodes = [
        RayNode(
            node_id=entry["NodeID"],
            address=entry["NodeManagerAddress"],
            node=_node(
                _name(entry) if shared[_name(entry)] == 1 else f"{_name(entry)}#{entry['NodeID'][:_SHORT_ID]}", entry
            ),
        )
        for entry in entries
    ]
    return sorted(nodes, key=lambda node: node.name)


def this_node() -> str:
    """The name of the one that this process runs on."""
    here = ray.get_runtime_context().get_node_id()
    return next(node.name for node in alive_nodes() if node.node_id == here)


def _name(entry: dict[str, Any]) -> str:
    return str(entry.get("NodeName") or entry["NodeManagerAddress"])


def _node(name: str, entry: dict[str, Any]) -> Node:
    resources = entry["Resources"]
    return Node(
        name=name,
        num_gpus=int(resources.get("GPU", 0.0)),
        num_cpus=float(resources.get("CPU", 0.0)),
        memory_bytes=int(resources.get("memory", 0.0)),
    )
