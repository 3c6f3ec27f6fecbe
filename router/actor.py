"""The Ray actor of the router: a shell around `RouterService`. No request passes through these calls."""

from cluster.instance.config import InstanceInfo
from router.config import RouterConfig, RouterInfo
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

    async def progress(self) -> str:
        return "running" if self._service else "starting"

    async def stop(self) -> None:
        if self._service is not None:
            await self._service.stop()
