"""With the other ray_*.py, all that calls Ray: it starts, places and watches processes. No request waits for it.

driver (RaySession) -> controller actor -> instance actors and the router actor. Each owns those to its right: when it
goes, they go.
"""

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util import get_node_ip_address
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.instance.config import InstanceConfig, InstanceInfo
from cluster.role import InstanceRole, RolePolicies
from cluster.spec.deployment import Deployment
from decode_workers.actor import DecodeActor
from deploy.controller import Controller, Member
from deploy.errors import MemberFailed
from deploy.events import Event
from deploy.ray_nodes import this_node
from deploy.roles import ROLE_POLICIES
from deploy.target import InstanceTarget
from prefill_workers.actor import PrefillActor
from router.actor import RouterActor
from router.config import RouterConfig, RouterInfo
from router.errors import BatonError


class _Watched:
    """What every member answers besides: why it could not start, and when it is gone."""

    async def start(self) -> Any:
        """Its own errors become one plain line: not every exception survives the way to another process."""
        try:
            return await super().start()  # type: ignore[misc]
        except (ValueError, OSError, BatonError) as error:
            raise MemberFailed(first_line(error)) from error

    async def until_gone(self) -> None:
        """The call never answers, it ends with the process."""
        await asyncio.Event().wait()


class _OnNode:
    """An instance listens on the address by which other nodes reach its own, and knows what that is called."""

    def __init__(self, config: InstanceConfig, policies: RolePolicies, *, on_loopback: bool) -> None:
        host = "127.0.0.1" if on_loopback else get_node_ip_address()  # type: ignore[no-untyped-call]
        super().__init__(replace(config, host=host, node=this_node()), policies)  # type: ignore[call-arg]


class PrefillInstance(_OnNode, _Watched, PrefillActor):
    pass


class DecodeInstance(_OnNode, _Watched, DecodeActor):
    pass


class GlobalRouter(_Watched, RouterActor):
    pass


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
        info: InstanceInfo | RouterInfo = await self._call("start")
        return info

    async def progress(self) -> str:
        return str(await self._call("progress"))

    async def set_instances(self, infos: list[InstanceInfo]) -> None:
        await self._call("set_instances", infos)

    async def until_gone(self) -> None:
        await self._call("until_gone")

    async def stop(self) -> None:
        await self._call("stop")

    def kill(self) -> None:
        ray.kill(self._actor)

    async def _call(self, method: str, *arguments: object) -> Any:
        try:
            return await getattr(self._actor, method).remote(*arguments)
        except RayError as error:
            raise MemberFailed(explain(error)) from error


class RayCluster:
    """Makes the controller's members. `on_loopback`: this machine is all there is."""

    def __init__(self, router_node_id: str, *, on_loopback: bool) -> None:
        self._router_node_id = router_node_id
        self._on_loopback = on_loopback

    def create_instance(self, target: InstanceTarget) -> Member:
        options = {
            "num_cpus": target.num_cpus,
            "num_gpus": target.num_gpus,
            "memory": target.memory_bytes or None,
            "scheduling_strategy": "SPREAD",
        }
        instance = actor_class(_ACTORS[target.config.role], **options)
        return RayMember(instance.remote(target.config, ROLE_POLICIES, on_loopback=self._on_loopback))

    def create_router(self, config: RouterConfig) -> Member:
        """On the node that `baton up` ran on: that is where its user looks for the ports."""
        here = NodeAffinitySchedulingStrategy(self._router_node_id, soft=False)
        return RayMember(actor_class(GlobalRouter, num_cpus=0, scheduling_strategy=here).remote(config))


class DeploymentController:
    def __init__(self, deployment: Deployment, router_node_id: str, on_loopback: bool) -> None:
        self._controller = Controller(deployment, RayCluster(router_node_id, on_loopback=on_loopback))

    async def up(self) -> None:
        """What it ends in is told by the events."""
        with suppress(MemberFailed):
            await self._controller.up()

    async def addresses(self) -> RouterInfo:
        return self._controller.addresses()

    async def events(self, number: int) -> list[Event]:
        return await self._controller.events(number)

    async def stop(self) -> None:
        await self._controller.stop()


def actor_class(kind: type, **options: Any) -> Any:
    """Ray's types do not follow its decorators."""
    return cast(Any, ray.remote(kind)).options(**options)


def explain(error: RayError) -> str:
    """One line for people: what the code in the process raised, or how the process ended."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        known = isinstance(error.cause, MemberFailed)
        return first_line(error.cause) if known else f"{type(error.cause).__name__}: {first_line(error.cause)}"
    if isinstance(error, RayActorError):
        return f"its process is gone ({first_line(error)})"
    return first_line(error)


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
