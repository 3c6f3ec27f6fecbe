"""A cluster whose router is a process too, so that it can be killed and made again where it was."""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from cluster.pb import baton_pb2
from router.client import BatonClient
from router.config import RouterInfo
from tests.integration.local_cluster import LocalCluster
from tests.integration.router_process import info_to_json

ROUTER = "router"
_LOOK_AGAIN_S = 0.1


class MortalRouterCluster(LocalCluster):
    """As `LocalCluster`; what it is like is asked over gRPC, as anybody would."""

    _term = 0
    _ports = (0, 0)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.client.close()
        await self._end_processes()

    async def _start_router(self) -> None:
        await self.start_router()
        self.client = BatonClient(self.info.grpc_address)
        await self.until(lambda status: all(it.status == "RUNNING" for it in status.instances))

    async def start_router(self) -> None:
        """A new life, with a greater term, where the one before it listened."""
        self._term += 1
        config = {
            "name": ROUTER,
            "deployment": "test",
            "model_name": "baton-tiny",
            "model_path": str(self._model_path),
            "term": self._term,
            "grpc_port": self._ports[0],
            "http_port": self._ports[1],
            **self._router_options,
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.integration.router_process", json.dumps(config)),
            cwd=Path(__file__).parents[2],
            env=self._environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self._processes[ROUTER] = self._router = process
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        assert line, "the router did not start"
        self.info = RouterInfo(**json.loads(line))
        self._ports = tuple(int(it.rpartition(":")[2]) for it in (self.info.grpc_address, self.info.http_address))
        await self.tell_router()

    async def tell_router(self) -> None:
        """Which instances there are."""
        stdin = self._router.stdin
        assert stdin is not None
        stdin.write(json.dumps([info_to_json(info) for info in self.infos.values()]).encode() + b"\n")
        await stdin.drain()

    async def kill_router(self) -> None:
        self.kill(ROUTER)
        await self._processes[ROUTER].wait()

    async def until(self, holds: Callable[[baton_pb2.ClusterStatus], bool], timeout_s: float = 10.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not holds(await self.client.status()):  # noqa: ASYNC110  another process has no events for us
                await asyncio.sleep(_LOOK_AGAIN_S)
