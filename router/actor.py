"""The Ray actor of the router: a shell around `RouterService`. No request passes through these calls."""

from cluster.instance.config import InstanceInfo
from cluster.role import InstanceRole
from router.config import RouterConfig, RouterInfo
from router.errors import OperationRefused
from router.links.live_links import LiveLinks
from router.operations import Operations
from router.service import RouterService


class RouterActor:
    """A plain class; `deploy` makes a Ray actor of it."""

    def __init__(self, config: RouterConfig) -> None:
        self._service: RouterService | None = None
        self._config = config

    async def start(self) -> RouterInfo:
        """Raises PortInUse and CheckpointTextError, each one line."""
        self._service = RouterService(self._config)
        return await self._service.start()

    async def set_instances(self, infos: list[InstanceInfo]) -> None:
        """All instances there are now."""
        if self._service is not None:
            await self._service.set_instances(infos)

    async def live_links(self) -> LiveLinks | None:
        """What is believed of the nodes and their links now."""
        return self._service.router.links.live() if self._service else None

    async def roles(self) -> dict[str, InstanceRole]:
        """Of instances by name, as operators and the controller have made them."""
        return self._service.router.operations.roles() if self._service else {}

    async def drain(self, instance: str) -> None:
        """Returns when nothing is there any more; OperationRefused says why it cannot be spared."""
        async for _ in self._operations().drain(instance):
            pass

    async def undo_drain(self, instance: str) -> None:
        self._operations().undo_drain(instance)

    async def flip(self, instance: str, role: str) -> None:
        """Returns when it has the role; OperationRefused."""
        async for _ in self._operations().flip(instance, role):
            pass

    def _operations(self) -> Operations:
        if self._service is None:
            raise OperationRefused("the router has not started yet")
        return self._service.router.operations

    async def progress(self) -> str:
        return "running" if self._service else "starting"

    async def stop(self) -> None:
        if self._service is not None:
            await self._service.stop()
