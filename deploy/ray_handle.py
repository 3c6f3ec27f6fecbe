"""The only file that calls Ray. It starts, places and watches processes; no request ever waits for it.

driver (RaySession) -> controller actor -> instance actors and the router actor. Each owns those to its right: when it
goes, they go.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Self, cast

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util import get_node_ip_address
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.instance.config import InstanceConfig, InstanceInfo
from cluster.role import InstanceRole, RolePolicies
from cluster.spec.deployment import Deployment
from decode_workers.actor import DecodeActor
from deploy.controller import Controller, Member
from deploy.errors import DeployError, MemberFailed
from deploy.events import Event
from deploy.roles import ROLE_POLICIES
from deploy.target import InstanceTarget
from prefill_workers.actor import PrefillActor
from router.actor import RouterActor
from router.config import RouterConfig, RouterInfo
from router.errors import BatonError

NAMESPACE = "baton"
_OBJECT_STORE_BYTES = 80 << 20  # the least Ray accepts: neither tokens nor KV go through it
_STOP_TIMEOUT_S = 8.0


class _Watched:
    """What every member answers besides: why it could not start, and when it is gone."""

    async def start(self) -> Any:
        """Its own errors become one plain line: not every exception survives the way to another process."""
        try:
            return await super().start()  # type: ignore[misc]
        except (ValueError, OSError, BatonError) as error:
            raise MemberFailed(_first_line(error)) from error

    async def until_gone(self) -> None:
        """The call never answers, it ends with the process."""
        await asyncio.Event().wait()


class _OnNode:
    """An instance listens on the address by which other nodes reach its own."""

    def __init__(self, config: InstanceConfig, policies: RolePolicies, *, on_loopback: bool) -> None:
        host = "127.0.0.1" if on_loopback else get_node_ip_address()  # type: ignore[no-untyped-call]
        super().__init__(replace(config, host=host), policies)  # type: ignore[call-arg]


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
        instance = _actor(_ACTORS[target.config.role], **options)
        return RayMember(instance.remote(target.config, ROLE_POLICIES, on_loopback=self._on_loopback))

    def create_router(self, config: RouterConfig) -> Member:
        """On the node that `baton up` ran on: that is where its user looks for the ports."""
        here = NodeAffinitySchedulingStrategy(self._router_node_id, soft=False)
        return RayMember(_actor(GlobalRouter, num_cpus=0, scheduling_strategy=here).remote(config))


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


class ControllerClient:
    """A running controller, as its driver or a later `baton down` sees it."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def addresses(self) -> RouterInfo:
        """Of a deployment that is up."""
        return cast(RouterInfo, ray.get(self._actor.addresses.remote()))

    def events(self, number: int) -> list[Event]:
        """Those after the first `number`, waiting for one; MemberFailed when the controller is gone."""
        try:
            return cast(list[Event], ray.get(self._actor.events.remote(number)))
        except RayError as error:
            raise MemberFailed(explain(error)) from error

    def stop(self) -> None:
        with suppress(RayActorError, GetTimeoutError):  # gone already, or stuck: the kill takes the others along
            ray.get(self._actor.stop.remote(), timeout=_STOP_TIMEOUT_S)
        ray.kill(self._actor)


class RaySession:
    """A connection to a cluster, or a cluster of this process's own that ends with it."""

    def __init__(self, address: str | None) -> None:
        """`address` None starts a local cluster; DeployError in one line where that does not work."""
        self.is_local = address is None
        options: dict[str, Any] = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": "ERROR"}
        if self.is_local:
            options |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}

        try:
            ray.init(address=address or "local", **options)
        except (RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
            if address is None:
                raise DeployError(f"Ray cannot be started here: {_first_line(error)}") from error
            hint = "its version and its token (RAY_AUTH_MODE, RAY_AUTH_TOKEN) have to be those of this process"
            raise DeployError(f"Ray at {address} cannot be joined: {_first_line(error)}; {hint}") from error
        self.address = ray.get_runtime_context().gcs_address

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        ray.shutdown()

    def require(self, targets: Sequence[InstanceTarget]) -> None:
        """DeployError when the free resources of the cluster cannot hold these instances."""
        free = ray.available_resources()  # type: ignore[no-untyped-call]
        for resource, needed in _sums(targets).items():
            if needed > free.get(resource, 0.0) + 1e-6:
                total = ray.cluster_resources().get(resource, 0.0)  # type: ignore[no-untyped-call]
                raise DeployError(
                    f"not enough {resource}: the deployment needs {_amount(resource, needed)}, "
                    f"{_amount(resource, free.get(resource, 0.0))} of {_amount(resource, total)} are free in Ray"
                )

    def start_controller(self, deployment: Deployment, *, detached: bool) -> ControllerClient:
        """Begins to bring the deployment up; its events tell how that goes. DeployError when the name is taken."""
        name = deployment.metadata.name
        options = {"name": name, "lifetime": "detached" if detached else None, "num_cpus": 0, "max_concurrency": 100}
        node_id = ray.get_runtime_context().get_node_id()
        try:
            actor = _actor(DeploymentController, **options).remote(deployment, node_id, self.is_local)
        except ValueError as error:
            raise DeployError(f"{name} is running already; `baton down {name}` stops it") from error
        actor.up.remote()
        return ControllerClient(actor)

    def find_controller(self, name: str) -> ControllerClient | None:
        try:
            return ControllerClient(ray.get_actor(name))
        except ValueError:
            return None


def _actor(kind: type, **options: Any) -> Any:
    """Ray's types do not follow its decorators."""
    return cast(Any, ray.remote(kind)).options(**options)


def explain(error: RayError) -> str:
    """One line for people: what the code in the process raised, or how the process ended."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        known = isinstance(error.cause, MemberFailed)
        return _first_line(error.cause) if known else f"{type(error.cause).__name__}: {_first_line(error.cause)}"
    if isinstance(error, RayActorError):
        return f"its process is gone ({_first_line(error)})"
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _sums(targets: Sequence[InstanceTarget]) -> dict[str, float]:
    return {
        "CPU": sum(target.num_cpus for target in targets),
        "GPU": sum(target.num_gpus for target in targets),
        "memory": float(sum(target.memory_bytes for target in targets)),
    }


def _amount(resource: str, amount: float) -> str:
    return f"{amount / (1 << 30):.2f} GiB" if resource == "memory" else f"{amount:g}"
