"""Made-up networks with the structure that real ones have, for calculations and tests."""

from collections.abc import Sequence

import numpy as np

from cluster.topology.topology import Matrix, Node, Topology


def racks(
    num_racks: int, nodes_per_rack: int, *, inside: float, between: float, alpha_s: float = 1e-4, num_gpus: int = 8
) -> Topology:
    """Nodes r0n0, r0n1, ... with one rate (bytes/s) inside a rack and another between racks."""
    names = [(rack, node) for rack in range(num_racks) for node in range(nodes_per_rack)]
    nodes = [Node(name=f"r{rack}n{node}", group=f"r{rack}", num_gpus=num_gpus) for rack, node in names]
    rack_of = np.array([rack for rack, _ in names])
    same = rack_of[:, None] == rack_of[None, :]
    return _made(nodes, np.where(same, inside, between), np.where(same, alpha_s, 2 * alpha_s))


def rails(num_nodes: int, num_rails: int, *, same: float, other: float, alpha_s: float = 1e-4) -> Topology:
    """Nodes on rails, by turns: one rate along a rail, another from rail to rail."""
    nodes = [Node(name=f"n{at}", group=f"rail{at % num_rails}", num_gpus=8) for at in range(num_nodes)]
    rail_of = np.arange(num_nodes) % num_rails
    is_same = rail_of[:, None] == rail_of[None, :]
    return _made(nodes, np.where(is_same, same, other), np.where(is_same, alpha_s, 3 * alpha_s))


def limited(topology: Topology, names: Sequence[str], rate: float, *, inwards: bool = True) -> Topology:
    """The same with no more than that rate out of these nodes, and into them: a slow rack, a node's slow cable."""
    chosen = [topology.index(name) for name in names]
    beta = topology.beta_bytes_per_s.copy()
    beta[chosen, :] = np.minimum(beta[chosen, :], rate)
    if inwards:
        beta[:, chosen] = np.minimum(beta[:, chosen], rate)
    return _made(topology.nodes, beta, topology.alpha_s)


def slowed_between(topology: Topology, group: str, other: str, rate: float) -> Topology:
    """The same with a slow cable from one group to another, and back."""
    here, there = (np.array([node.group == name for node in topology.nodes]) for name in (group, other))
    crossing = np.outer(here, there) | np.outer(there, here)
    beta = np.where(crossing, np.minimum(topology.beta_bytes_per_s, rate), topology.beta_bytes_per_s)
    return _made(topology.nodes, beta, topology.alpha_s)


def measured(topology: Topology, pairs: Sequence[tuple[str, str]], noise: float, rng: np.random.Generator) -> Topology:
    """What a probe of these pairs, both ways, would find: their links, off by a factor of about 1 ± noise."""
    rows, columns = np.array([[topology.index(one), topology.index(other)] for one, other in pairs]).T
    chosen = np.zeros(topology.alpha_s.shape, bool)
    chosen[rows, columns] = chosen[columns, rows] = True
    found = [
        np.where(chosen, values * np.exp(noise * rng.standard_normal(values.shape)), np.nan)
        for values in (topology.alpha_s, topology.beta_bytes_per_s)
    ]
    return Topology(topology.nodes, found[0], found[1])


def _made(nodes: Sequence[Node], beta: Matrix, alpha_s: Matrix) -> Topology:
    beta, alpha_s = beta.astype(float), alpha_s.astype(float)
    np.fill_diagonal(beta, np.nan)
    np.fill_diagonal(alpha_s, np.nan)
    return Topology(nodes, alpha_s, beta)
