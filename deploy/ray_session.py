"""A command's connection to Ray, and through it to the controller of a deployment."""

import asyncio
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any, Self, cast

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.links.config import LinkConfig
from cluster.spec.deployment import Deployment
from cluster.topology.topology import Topology
from deploy.errors import DeployError, MemberFailed, first_line
from deploy.events import Event
from deploy.probing.survey import Say, Survey
from deploy.ray_errors import explain
from deploy.ray_handle import DeploymentController, actor_class
from deploy.ray_nodes import alive_nodes
from deploy.ray_probe import survey_nodes
from deploy.target import InstanceTarget, resources
from router.config import RouterInfo

NAMESPACE = "baton"
_OBJECT_STORE_BYTES = 80 << 20  # the least Ray accepts: neither tokens nor KV go through it
_STOP_TIMEOUT_S = 8.0
_CALL_TIMEOUT_S = 10.0


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

    def topology(self) -> Topology:
        """Its nodes, with what they have for it, and links as they are now. MemberFailed."""
        try:
            return cast(Topology, ray.get(self._actor.topology.remote(), timeout=_CALL_TIMEOUT_S))
        except (RayError, TimeoutError) as error:
            raise MemberFailed(explain(error) if isinstance(error, RayError) else "it does not answer") from error

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
        with tempfile.TemporaryFile() as said:
            try:
                with _stderr_to(said):
                    ray.init(address=address or "local", **options)
            except (RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
                what = f"Ray at {address} cannot be joined" if address else "Ray cannot be started here"
                raise DeployError(f"{what}: {_last_warning(said) or first_line(error)}") from error
        self.address = ray.get_runtime_context().gcs_address

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        ray.shutdown()

    def require(self, targets: Sequence[InstanceTarget]) -> None:
        """DeployError when the free resources of the cluster cannot hold these instances."""
        free = ray.available_resources()  # type: ignore[no-untyped-call]
        for resource, needed in resources(targets).items():
            if needed > free.get(resource, 0.0) + 1e-6:
                total = ray.cluster_resources().get(resource, 0.0)  # type: ignore[no-untyped-call]
                raise DeployError(
                    f"not enough {resource}: the deployment needs {_amount(resource, needed)}, "
                    f"{_amount(resource, free.get(resource, 0.0))} of {_amount(resource, total)} are free in Ray"
                )

    def survey(self, budget_s: float, say: Say, links: LinkConfig | None = None) -> Survey:
        """All its nodes and the links between them, probed. DeployError when nothing could be measured."""
        nodes = alive_nodes()
        return asyncio.run(survey_nodes(nodes, [node.node for node in nodes], links or LinkConfig(), budget_s, say))

    def start_controller(self, deployment: Deployment, *, detached: bool) -> ControllerClient:
        """Begins to bring the deployment up; its events tell how that goes. DeployError when the name is taken."""
        name, node_id = deployment.metadata.name, ray.get_runtime_context().get_node_id()
        options = {
            "name": name,
            "lifetime": "detached" if detached else None,
            "num_cpus": 0,
            "max_concurrency": 100,
            # Beside the router: on another node it would be one more whose end takes the deployment down.
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False),
        }
        try:
            actor = actor_class(DeploymentController, **options).remote(deployment, node_id, self.is_local)
        except ValueError as error:
            raise DeployError(f"{name} is running already; `baton down {name}` stops it") from error
        actor.up.remote()
        return ControllerClient(actor)

    def find_controller(self, name: str) -> ControllerClient | None:
        try:
            return ControllerClient(ray.get_actor(name))
        except ValueError:
            return None


@contextmanager
def _stderr_to(file: IO[bytes]) -> Iterator[None]:
    """Also what Ray's C++ writes there, which retries aloud."""
    before = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def _last_warning(said: IO[bytes]) -> str:
    """Why Ray gave up, as it logged it: "[time W pid thread] gcs_client.cc:210: Failed to ..."."""
    said.seek(0)
    warnings = re.findall(rb"^\[[^]]*\] \S+: (.+)$", said.read(), re.MULTILINE)
    return warnings[-1].decode(errors="replace") if warnings else ""


def _amount(resource: str, amount: float) -> str:
    return f"{amount / (1 << 30):.2f} GiB" if resource == "memory" else f"{amount:g}"
