"""A topology that says something of every pair, where not all was measured: what to take for the others."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from cluster.topology.topology import Matrix, Node, Topology
from cluster.topology.usual import fill_links

UNREACHABLE_S = 60.0
"""What a transfer is taken to cost where there is no way: more than over any link that is there."""


def assume(nodes: Sequence[Node], known: Sequence[Topology], unreachable: Iterable[tuple[str, str]] = ()) -> Topology:
    """Of these nodes. A link is as the first says that knows it, else as the median of all; ValueError: none is known.

    A node's egress and ingress are those that the first topology gives which has the node.
    """
    alpha_s, beta = (np.full((len(nodes), len(nodes)), np.nan) for _ in range(2))
    for topology in reversed(known):
        _copy(topology, nodes, alpha_s, beta)
    fill_links(alpha_s, beta)  # where nothing is known within nodes, nothing has to travel there
    if len(nodes) > 1 and np.isnan(beta[0, 1]):
        raise ValueError("nothing is known of any link between these nodes")
    names = {node.name: at for at, node in enumerate(nodes)}
    for source, target in unreachable:
        if source in names and target in names and source != target:
            alpha_s[names[source], names[target]] = UNREACHABLE_S
    return Topology([_with_limits(node, known) for node in nodes], alpha_s, beta)


def _copy(topology: Topology, nodes: Sequence[Node], alpha_s: Matrix, beta: Matrix) -> None:
    """What it knows, over what is there."""
    has = {node.name: at for at, node in enumerate(topology.nodes)}
    mine = [at for at, node in enumerate(nodes) if node.name in has]
    theirs = [has[nodes[at].name] for at in mine]
    if not mine:
        return
    block, other = np.ix_(mine, mine), np.ix_(theirs, theirs)
    is_known = np.isfinite(topology.beta_bytes_per_s[other])
    alpha_s[block] = np.where(is_known, topology.alpha_s[other], alpha_s[block])
    beta[block] = np.where(is_known, topology.beta_bytes_per_s[other], beta[block])


def _with_limits(node: Node, known: Sequence[Topology]) -> Node:
    same = next((other for topology in known for other in topology.nodes if other.name == node.name), node)
    return replace(node, egress_bytes_per_s=same.egress_bytes_per_s, ingress_bytes_per_s=same.ingress_bytes_per_s)
