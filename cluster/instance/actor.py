"""What both pools' Ray actors are: a shell that starts an instance, answers for it, and dies when it fails."""

import asyncio
import os
from dataclasses import replace

from cluster.instance.config import InstanceConfig, InstanceInfo
from cluster.instance.instance import Instance
from cluster.role import RolePolicies


class InstanceActor:
    """A plain class; `deploy` makes a Ray actor of it. No request ever waits on one of these calls."""

    def __init__(self, config: InstanceConfig, policies: RolePolicies) -> None:
        self._config = config
        self._policies = policies
        self._instance: Instance | None = None

    async def start(self, rank_addresses: tuple[str, ...] = ()) -> InstanceInfo:
        """Loads and serves; a second call, after Ray restarted the process, is a new life.

        `rank_addresses`: where its other ranks wait.
        """
        if self._instance is None:
            self._instance = Instance(replace(self._config, rank_addresses=rank_addresses), self._policies)
            info = await self._instance.start()
            self._watch = asyncio.create_task(self._die_with(self._instance))
            return info
        return self._instance.info

    async def progress(self) -> str:
        return self._instance.progress if self._instance else "starting"

    async def stop(self) -> None:
        if self._instance is not None:
            self._watch.cancel()
            await self._instance.stop()

    async def _die_with(self, instance: Instance) -> None:
        """An engine that failed cannot be trusted with a clean end: Ray sees the process die, and starts another."""
        await instance.failed.wait()
        os._exit(1)
