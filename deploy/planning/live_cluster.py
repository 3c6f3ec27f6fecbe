"""A running deployment, as the planner watches it: asked over its own fronts."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast
from urllib.error import URLError
from urllib.request import urlopen

from cluster.latency.hardware import Parallelism
from cluster.spec.deployment import Deployment
from cluster.spec.pool import Pool
from cluster.topology.topology import Topology
from deploy.client import fetch_status
from deploy.errors import DeployError
from deploy.live_topology import topology_of
from deploy.planner.assumed import assume
from deploy.planner.goodput.layout import Seated
from deploy.planner.goodput.unit import PoolPlan, Role
from deploy.planning.live_workload import Totals, read_totals

_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveCluster:
    """`flips(instance, role)` carries one out, and returns when it is done."""

    deployment: Deployment
    grpc_address: str
    http_address: str
    flips: Callable[[str, Role], None]

    def totals(self) -> Totals:
        try:
            with urlopen(f"http://{self.http_address}/metrics", timeout=_TIMEOUT_S) as answer:
                return read_totals(answer.read().decode(), time.monotonic())
        except (URLError, OSError) as error:
            raise DeployError(f"no metrics at {self.http_address}: {error}") from error

    def topology(self) -> Topology:
        """Nodes have as many seats, counted as GPUs, as the instances on them take."""
        status = fetch_status(self.grpc_address)
        known = topology_of(status.nodes, status.node_links)
        if len(known) > 1:
            known = assume(known.nodes, [known])
        taken: Counter[str] = Counter()
        for seat in self.running():
            taken[seat.node] += seat.pool.num_gpus
        nodes = [replace(node, num_gpus=taken[node.name]) for node in known.nodes]
        return Topology(nodes, known.alpha_s, known.beta_bytes_per_s, known.residual)

    def running(self) -> list[Seated]:
        pools = {name: pool for pool in self.deployment.spec.pools for name in pool.instance_names()}
        return [
            Seated(name=it.instance, pool=self._plan_of(pools[it.instance], cast(Role, it.role)), node=it.node)
            for it in fetch_status(self.grpc_address).instances
            if it.status == "RUNNING" and it.instance in pools
        ]

    def flip(self, instance: str, role: Role) -> None:
        self.flips(instance, role)

    def _plan_of(self, pool: Pool, role: Role) -> PoolPlan:
        parallelism = Parallelism(pool.engine.tensor_parallel_size)
        budget = pool.engine.max_num_batched_tokens
        return PoolPlan(role=role, parallelism=parallelism, token_budget=budget)


def fixed_instances(deployment: Deployment) -> frozenset[str]:
    """Those that are not of the largest group of instances which could do each other's work."""
    groups: dict[object, list[str]] = {}
    for pool in deployment.spec.pools:
        engine = pool.engine
        key = (
            pool.resources,
            engine.tensor_parallel_size,
            engine.kv_cache_memory_bytes,
            engine.block_size,
            engine.max_num_batched_tokens,
        )
        groups.setdefault(key, []).extend(pool.instance_names())
    largest = max(groups.values(), key=len)
    return frozenset(name for names in groups.values() if names is not largest for name in names)
