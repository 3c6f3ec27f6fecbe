"""Small deployments and clusters to place them on."""

import numpy as np

from cluster.topology.topology import Node, Topology
from deploy.planner.placement import PoolNeeds, Traffic

TRAFFIC = Traffic(request_bytes=100e6)


def make_pool(name, num_instances=1, *, num_gpus=1.0, role=None, **needs):
    return PoolNeeds(name=name, role=role or name, num_instances=num_instances, num_gpus=num_gpus, **needs)


def make_cluster(num_nodes, rng, *, num_gpus=2, local=True):
    """Every link with a rate of its own, and every node with limits of its own."""
    beta = rng.uniform(1e9, 12e9, (num_nodes, num_nodes))
    alpha = rng.uniform(1e-5, 1e-3, (num_nodes, num_nodes))
    if not local:
        np.fill_diagonal(beta, np.nan)
    limits = rng.uniform(4e9, 16e9, (num_nodes, 2))
    nodes = [
        Node(name=f"n{at}", num_gpus=num_gpus, egress_bytes_per_s=out, ingress_bytes_per_s=into)
        for at, (out, into) in enumerate(limits)
    ]
    return Topology(nodes, alpha, beta)
