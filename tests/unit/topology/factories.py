"""Small topologies by hand."""

from cluster.topology.link_model import LinkModel
from cluster.topology.topology import Node, Topology


def make_topology(*nodes, links=None, alpha_s=0.0, beta=100.0):
    """All pairs alike but for `links`: {(source, target): beta}; nodes by name or as they are."""
    made = [node if isinstance(node, Node) else Node(name=node) for node in nodes]
    rates = {(a.name, b.name): beta for a in made for b in made if a is not b} | (links or {})
    models = {pair: LinkModel(alpha_s=alpha_s, beta_bytes_per_s=rate) for pair, rate in rates.items()}
    return Topology.of_links(made, models)
