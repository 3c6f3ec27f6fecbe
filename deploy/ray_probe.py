"""Probers as Ray actors, one on each node."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.handshake import draw_secret
from cluster.links.config import LinkConfig
from cluster.links.errors import LinkError
from cluster.links.probe.node import ProbeNode, ProbeTarget
from cluster.messages import Probed
from cluster.secret import ClusterSecret
from cluster.topology.topology import Node
from deploy.errors import MemberFailed, first_line
from deploy.probing.survey import Say, Survey, survey
from deploy.ray_errors import call
from deploy.ray_nodes import RayNode, address_here

_SETUP_TIMEOUT_S = 3.0  # a pair that cannot reach each other takes this from all others


class ProbeActor:
    """A `ProbeNode` in a process of its own."""

    def __init__(self, name: str, config: LinkConfig, secret: ClusterSecret) -> None:
        self._name, self._config, self._secret = name, config, secret

    async def start(self) -> ProbeTarget:
        try:
            self._node = await asyncio.to_thread(self._make)
        except (LinkError, ValueError, OSError) as error:
            raise MemberFailed(first_line(error)) from error
        return self._node.target

    async def probe(self, target: ProbeTarget, budget_s: float) -> Probed:
        return await asyncio.to_thread(self._node.probe, target, budget_s)

    async def flood(self, targets: Sequence[ProbeTarget], seconds: float) -> float:
        try:
            return await asyncio.to_thread(self._node.flood, targets, seconds)
        except LinkError as error:
            raise MemberFailed(first_line(error)) from error

    async def stop(self) -> None:
        await asyncio.to_thread(self._node.close)

    def _make(self) -> ProbeNode:
        return ProbeNode(self._name, secret=self._secret, config=self._config, host=address_here())


class RayProber:
    """Two processes on a node: the link inside it is between them. Ray's errors become MemberFailed."""

    def __init__(self, node: RayNode, config: LinkConfig, secret: ClusterSecret) -> None:
        there = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        kind: Any = ray.remote(ProbeActor)
        actor = kind.options(num_cpus=0, max_concurrency=16, scheduling_strategy=there)
        self._actor, self._other = (actor.remote(name, config, secret) for name in (node.name, f"{node.name}-other"))

    async def start(self) -> ProbeTarget:
        ends: list[ProbeTarget] = await asyncio.gather(call(self._actor, "start"), call(self._other, "start"))
        self._inside = ends[1]
        return ends[0]

    async def probe(self, target: ProbeTarget, budget_s: float) -> Probed:
        probed: Probed = await call(self._actor, "probe", target, budget_s)
        return probed

    async def probe_within(self, budget_s: float) -> Probed:
        return await self.probe(self._inside, budget_s)

    async def flood(self, targets: Sequence[ProbeTarget], seconds: float) -> float:
        return float(await call(self._actor, "flood", targets, seconds))

    async def stop(self) -> None:
        await asyncio.gather(call(self._actor, "stop"), call(self._other, "stop"))

    def kill(self) -> None:
        for actor in (self._actor, self._other):
            ray.kill(actor)


async def survey_nodes(
    there: Sequence[RayNode], nodes: Sequence[Node], config: LinkConfig, budget_s: float, say: Say
) -> Survey:
    """`nodes`: what the topology is to say of those that are there. DeployError when nothing could be measured.

    The probers have no GPUs: where instances use NCCL, what is measured is the network under it.
    """
    secret = draw_secret()  # only for this
    transport = "auto" if config.transport == "nccl" else config.transport
    config = replace(config, transport=transport, setup_timeout_s=min(config.setup_timeout_s, _SETUP_TIMEOUT_S))
    probers = {node.name: RayProber(node, config, secret) for node in there}
    return await survey(probers, nodes, budget_s, say)
