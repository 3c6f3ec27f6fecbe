"""The nodes of the Ray cluster that this process belongs to, as Ray describes them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor
from typing import Any, cast

import ray
from ray._private.state import available_resources_per_node  # named in no public module
from ray.util import get_node_ip_address

from cluster.topology.topology import Node

_SHORT_ID = 6
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class RayNode:
    """A node that is alive. `address`: its IP address; `free`: what nobody uses there, by Ray's names."""

    node_id: str
    name: str
    address: str
    free: Mapping[str, float]

    @property
    def node(self) -> Node:
        return self.with_free({})

    def with_free(self, more: Mapping[str, float]) -> Node:
        """As if that were free as well."""
        gpus, cpus, memory = (self.free.get(it, 0.0) + more.get(it, 0.0) for it in ("GPU", "CPU", "memory"))
        return Node(name=self.name, num_gpus=floor(gpus + _ROUNDING), num_cpus=cpus, memory_bytes=round(memory))


def alive_nodes() -> list[RayNode]:
    """By their names, which are those that Ray was given (`ray start --node-name`): without one, their addresses."""
    free = available_resources_per_node()  # type: ignore[no-untyped-call]
    return named([entry for entry in cast(Any, ray).nodes() if entry["Alive"]], free)


def named(entries: Sequence[Mapping[str, Any]], free: Mapping[str, Mapping[str, float]]) -> list[RayNode]:
    """Of entries of Ray's table. Those that share a name, as two on one host do, get it with a piece of their id."""
    shared = Counter(map(_name, entries))
    nodes = []
    for entry in entries:
        node_id, name = entry["NodeID"], _name(entry)
        nodes.append(
            RayNode(
                node_id=node_id,
                name=name if shared[name] == 1 else f"{name}#{node_id[:_SHORT_ID]}",
                address=entry["NodeManagerAddress"],
                free=free.get(node_id, {}),
            )
        )
    return sorted(nodes, key=lambda node: node.name)


def this_node() -> str:
    """The name of the one that this process runs on."""
    here = ray.get_runtime_context().get_node_id()
    return next(node.name for node in alive_nodes() if node.node_id == here)


def address_here() -> str:
    """By which other nodes reach this one."""
    return str(get_node_ip_address())  # type: ignore[no-untyped-call]


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry.get("NodeName") or entry["NodeManagerAddress"])
