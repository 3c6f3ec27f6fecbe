"""What the controller works with: processes, and where they come from. Behind them is Ray, or a test."""

from typing import Protocol

from cluster.instance.config import InstanceInfo
from cluster.role import InstanceRole
from deploy.placing import Network
from deploy.target import InstanceTarget
from router.config import RouterConfig, RouterInfo
from router.links.live_links import LiveLinks


class Member(Protocol):
    """One life of the router or of an instance, in a process of its own. A call to one that is gone: MemberFailed."""

    async def start(self) -> InstanceInfo | RouterInfo: ...
    async def progress(self) -> str: ...
    # The router only:
    async def set_instances(self, infos: list[InstanceInfo]) -> None: ...
    async def live_links(self) -> LiveLinks | None: ...
    async def roles(self) -> dict[str, InstanceRole]: ...  # of instances, by name
    async def drain(self, instance: str) -> None: ...  # ends when it is empty
    async def undo_drain(self, instance: str) -> None: ...
    async def flip(self, instance: str, role: str) -> None: ...
    # All of them:
    async def until_gone(self) -> None: ...  # ends in MemberFailed
    async def stop(self) -> None: ...
    def kill(self) -> None: ...


class Cluster(Network, Protocol):
    """Makes processes; their start is not awaited."""

    async def reserve(self, target: InstanceTarget, node: str) -> None:
        """A place on that node, which its lives have from now on; MemberFailed: there is none."""
        ...

    def release(self, target: InstanceTarget, node: str) -> None:
        """The place that was reserved there last, when it stays where it was after all."""
        ...

    def create_instance(self, target: InstanceTarget) -> Member:
        """In the place that is reserved for it; without one anywhere."""
        ...

    def create_router(self, config: RouterConfig) -> Member: ...
