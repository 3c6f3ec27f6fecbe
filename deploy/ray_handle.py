"""With the other ray_*.py, all that calls Ray: it starts, places and watches processes. No request waits for it.

driver (RaySession) -> controller actor -> instance actors and the router actor. Each owns those to its right: when it
goes, they go.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.instance.config import InstanceConfig, InstanceInfo
from cluster.links.config import LinkConfig
from cluster.ranks.actor import RankActor
from cluster.role import InstanceRole, RolePolicies
from cluster.secret import ClusterSecret
from cluster.spec.deployment import Deployment
from cluster.topology.topology import Node, Topology
from decode_workers.actor import DecodeActor
from deploy.controller import Controller
from deploy.errors import MemberFailed, first_line
from deploy.events import Event
from deploy.member import Member
from deploy.probing.survey import Say, Survey
from deploy.ray_errors import call
from deploy.ray_groups import PlacementGroups
from deploy.ray_nodes import RayNode, address_here, alive_nodes, this_node
from deploy.ray_probe import survey_nodes
from deploy.roles import ROLE_POLICIES
from deploy.target import InstanceTarget, resources
from prefill_workers.actor import PrefillActor
from router.actor import RouterActor
from router.config import RouterConfig, RouterInfo
from router.errors import BatonError
from router.links.live_links import LiveLinks


class _Watched:
    """What every member answers besides: why it could not start, and when it is gone."""

    async def start(self, *arguments: Any) -> Any:
        """Its own errors become one plain line: not every exception survives the way to another process."""
        try:
            return await super().start(*arguments)  # type: ignore[misc]
        except (ValueError, OSError, BatonError) as error:
            raise MemberFailed(first_line(error)) from error

    async def until_gone(self) -> None:
        """The call never answers, it ends with the process."""
        await asyncio.Event().wait()


class _OnNode:
    """An instance listens on the address by which other nodes reach its own, and knows what that is called."""

    def __init__(self, config: InstanceConfig, policies: RolePolicies, *, on_loopback: bool) -> None:
        host = "127.0.0.1" if on_loopback else address_here()
        super().__init__(replace(config, host=host, node=this_node()), policies)  # type: ignore[call-arg]


class PrefillInstance(_OnNode, _Watched, PrefillActor):
    pass


class DecodeInstance(_OnNode, _Watched, DecodeActor):
    pass


class RankProcess(RankActor):
    """Another rank of an instance than the one that serves."""

    def __init__(self, secret: ClusterSecret, *, on_loopback: bool) -> None:
        super().__init__(secret, "127.0.0.1" if on_loopback else address_here())


class GlobalRouter(_Watched, RouterActor):
    """What the controller asks of it: refusals become one plain line, as the errors of a start do."""

    async def drain(self, instance: str) -> None:
        await _plainly(super().drain(instance))

    async def undo_drain(self, instance: str) -> None:
        await _plainly(super().undo_drain(instance))

    async def flip(self, instance: str, role: str) -> None:
        await _plainly(super().flip(instance, role))


async def _plainly(work: Awaitable[None]) -> None:
    try:
        await work
    except BatonError as error:
        raise MemberFailed(first_line(error)) from error


_ACTORS: dict[InstanceRole, type] = {
    InstanceRole.PREFILL: PrefillInstance,
    InstanceRole.DECODE: DecodeInstance,
    InstanceRole.MIXED: DecodeInstance,
}


class RayMember:
    """A process behind a Ray actor: Ray's errors become MemberFailed."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def start(self) -> InstanceInfo | RouterInfo:
        info: RouterInfo = await call(self._actor, "start")
        return info

    async def progress(self) -> str:
        return str(await call(self._actor, "progress"))

    async def set_instances(self, infos: list[InstanceInfo]) -> None:
        await call(self._actor, "set_instances", infos)

    async def until_gone(self) -> None:
        await call(self._actor, "until_gone")

    async def stop(self) -> None:
        await call(self._actor, "stop")

    async def live_links(self) -> LiveLinks | None:
        live: LiveLinks | None = await call(self._actor, "live_links")
        return live

    async def roles(self) -> dict[str, InstanceRole]:
        roles: dict[str, InstanceRole] = await call(self._actor, "roles")
        return roles

    async def drain(self, instance: str) -> None:
        await call(self._actor, "drain", instance)

    async def undo_drain(self, instance: str) -> None:
        await call(self._actor, "undo_drain", instance)

    async def flip(self, instance: str, role: str) -> None:
        await call(self._actor, "flip", instance, role)

    def kill(self) -> None:
        ray.kill(self._actor)


class RayInstance(RayMember):
    """`ranks`: the actors of its other ranks. It fails with any of them, and they end with it.

    `node`: that it is on, while it runs.
    """

    def __init__(self, actor: Any, ranks: Sequence[Any]) -> None:
        super().__init__(actor)
        self._ranks = ranks
        self.node = ""

    async def start(self) -> InstanceInfo:
        addresses = await asyncio.gather(*(call(rank, "listen") for rank in self._ranks))
        info: InstanceInfo = await call(self._actor, "start", tuple(addresses))
        self.node = info.node
        return info

    def kill(self) -> None:
        self.node = ""
        super().kill()
        for rank in self._ranks:
            ray.kill(rank)


class RayCluster:
    """Makes the controller's members. `on_loopback`: this machine is all there is."""

    def __init__(self, deployment: Deployment, router_node_id: str, *, on_loopback: bool) -> None:
        self._links = LinkConfig(**deployment.spec.links.model_dump())
        self._has_gpus = any(pool.resources.gpus for pool in deployment.spec.pools)
        self._router_node_id = router_node_id
        self._on_loopback = on_loopback
        self._groups = PlacementGroups()
        self._placed_by_ray: dict[str, tuple[InstanceTarget, RayInstance]] = {}

    async def nodes(self) -> list[Node]:
        return [
            node.with_free(resources([*self._groups.on(node), *self._chosen(node)])) for node in await self._alive()
        ]

    def _chosen(self, node: RayNode) -> list[InstanceTarget]:
        return [target for target, member in self._placed_by_ray.values() if member.node == node.name]

    async def survey(self, nodes: Sequence[Node], budget_s: float, say: Say) -> Survey:
        if self._has_gpus:
            say("probing the network by TCP; NCCL links are measured once instances run")
        wanted = {node.name for node in nodes}
        there = [node for node in await self._alive() if node.name in wanted]
        return await survey_nodes(there, nodes, self._links, budget_s, say)

    async def reserve(self, target: InstanceTarget, node: str) -> None:
        await self._groups.reserve(target, await self._find(node))

    def release(self, target: InstanceTarget, node: str) -> None:
        self._groups.release(target, node)

    def create_instance(self, target: InstanceTarget) -> Member:
        places = self._groups.options(target)
        where = places or self._by_ray(target)
        share = target.of_a_rank
        amounts = {"num_cpus": share.num_cpus, "num_gpus": share.num_gpus, "memory": share.memory_bytes or None}
        first, *others = ({**amounts, **place} for place in where)
        config, on_loopback = target.config, self._on_loopback
        actor = actor_class(_ACTORS[config.role], **first).remote(config, ROLE_POLICIES, on_loopback=on_loopback)
        ranks = [actor_class(RankProcess, **it).remote(config.secret, on_loopback=on_loopback) for it in others]
        member = RayInstance(actor, ranks)
        if not places:
            self._placed_by_ray[target.name] = target, member
        return member

    def _by_ray(self, target: InstanceTarget) -> list[dict[str, Any]]:
        """Options that leave the choice of the node to it."""
        return [{"scheduling_strategy": "SPREAD"}] if target.num_ranks == 1 else self._groups.together(target)

    def create_router(self, config: RouterConfig) -> Member:
        """On the node that `baton up` ran on: that is where its user looks for the ports."""
        here = NodeAffinitySchedulingStrategy(self._router_node_id, soft=False)
        return RayMember(actor_class(GlobalRouter, num_cpus=0, scheduling_strategy=here).remote(config))

    async def _find(self, name: str) -> RayNode:
        for node in await self._alive():
            if node.name == name:
                return node
        raise MemberFailed(f"there is no node {name} in Ray any more")

    async def _alive(self) -> list[RayNode]:
        try:
            return await asyncio.to_thread(alive_nodes)
        except (RayError, RuntimeError, OSError) as error:
            raise MemberFailed(f"Ray does not say which nodes there are: {first_line(error)}") from error


class DeploymentController:
    def __init__(self, deployment: Deployment, router_node_id: str, on_loopback: bool) -> None:
        self._controller = Controller(deployment, RayCluster(deployment, router_node_id, on_loopback=on_loopback))

    async def up(self) -> None:
        """What it ends in is told by the events."""
        with suppress(MemberFailed, asyncio.CancelledError):
            await self._controller.up()

    async def addresses(self) -> RouterInfo:
        return self._controller.addresses()

    async def topology(self) -> Topology:
        return await self._controller.topology()

    async def events(self, number: int) -> list[Event]:
        return await self._controller.events(number)

    async def stop(self) -> None:
        await self._controller.stop()


def actor_class(kind: type, **options: Any) -> Any:
    """Ray's types do not follow its decorators."""
    return cast(Any, ray.remote(kind)).options(**options)
