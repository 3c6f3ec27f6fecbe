"""The networks of the calculation: 64 nodes in racks of unequal bandwidth, and the same with equal links."""

from dataclasses import replace

import numpy as np

from cluster.role import InstanceRole
from cluster.topology.synthetic import racks
from cluster.topology.topology import Matrix, Topology

NUM_RACKS = 8
NODES_PER_RACK = 8
PREFILLS_PER_RACK = 3
GBIT = 1e9 / 8


INSIDE, BETWEEN, NODE = 100 * GBIT, 25 * GBIT, 100 * GBIT
SLOW_RACKS = {"r6": 10 * GBIT, "r7": 5 * GBIT}
SLOW_CABLES = {frozenset({"r0", "r1"}): 5 * GBIT}


def unequal() -> Topology:
    """100 Gbit/s inside a rack, 25 between racks; one rack behind 10, one behind 5; a cable of 5 between two others."""
    topology = racks(NUM_RACKS, NODES_PER_RACK, inside=INSIDE, between=BETWEEN)
    groups = [node.group for node in topology.nodes]
    rates = [[_rate(source, target) for target in groups] for source in groups]
    return _wired(topology, np.minimum(topology.beta_bytes_per_s, rates))


def equal() -> Topology:
    """25 Gbit/s everywhere."""
    topology = racks(NUM_RACKS, NODES_PER_RACK, inside=BETWEEN, between=BETWEEN)
    return _wired(topology, topology.beta_bytes_per_s)


def _rate(source: str, target: str) -> float:
    if source == target:
        return INSIDE
    ends = min(SLOW_RACKS.get(source, BETWEEN), SLOW_RACKS.get(target, BETWEEN))
    return min(ends, SLOW_CABLES.get(frozenset({source, target}), BETWEEN))


def _wired(topology: Topology, beta: Matrix) -> Topology:
    """Every node has one cable for all its links."""
    nodes = [replace(node, egress_bytes_per_s=NODE, ingress_bytes_per_s=NODE) for node in topology.nodes]
    return Topology(nodes, topology.alpha_s, beta)


def roles(topology: Topology) -> dict[str, InstanceRole]:
    """Three of eight instances of each rack prefill, the others decode."""
    names = [node.name for node in topology.nodes]
    return {
        name: InstanceRole.PREFILL if at % NODES_PER_RACK < PREFILLS_PER_RACK else InstanceRole.DECODE
        for at, name in enumerate(names)
    }
