"""Which node each simulated instance is on: as `baton up` would place it."""

import numpy as np

from cluster.spec.checks import PROCESS_BYTES
from cluster.spec.deployment import Deployment
from cluster.spec.pool import Pool
from cluster.topology.topology import Node, Topology
from deploy.planner.placement import NoRoom, PoolNeeds, Traffic
from deploy.planner.planner import Planner

ONE_NODE = "node"


def one_node() -> Topology:
    """For who says nothing of a network: all instances on one node, which give each other KV in no time."""
    return Topology([Node(name=ONE_NODE)], np.full((1, 1), np.nan), np.full((1, 1), np.nan))


def seats_of(
    deployment: Deployment, topology: Topology, request_bytes: float, *, on_gpu: bool, seed: int
) -> dict[str, str]:
    """The node of each instance, by its name. NoRoom; `request_bytes`: of KV that a request of usual length moves."""
    if len(topology) == 1 and topology.nodes[0].name == ONE_NODE:
        return {name: ONE_NODE for pool in deployment.spec.pools for name in pool.instance_names()}
    needs = [_needs(pool, on_gpu=on_gpu) for pool in deployment.spec.pools]
    planner = Planner(needs, topology, Traffic(request_bytes=request_bytes), np.random.default_rng(seed))
    plan = planner.plan(with_worst=False)
    chosen = plan.label_free if deployment.spec.placement.policy == "spread" else plan.chosen
    if chosen is None:
        raise NoRoom(needs[0].name, "replicas", "cannot be spread evenly over the nodes")
    return {placed.instance: placed.node for placed in chosen.instances}


def _needs(pool: Pool, *, on_gpu: bool) -> PoolNeeds:
    """A GPU a rank; whether weights and KV fit into its memory is checked elsewhere. Without GPUs the host holds KV."""
    held_bytes = 0 if on_gpu else pool.engine.kv_cache_memory_bytes
    gpus = max(pool.resources.gpus, float(pool.engine.tensor_parallel_size)) if on_gpu else pool.resources.gpus
    return PoolNeeds(
        name=pool.name,
        role=pool.role,
        num_instances=pool.replicas,
        num_gpus=gpus,
        num_cpus=pool.resources.cpus,
        memory_bytes=pool.resources.memory or PROCESS_BYTES + held_bytes,
    )
