"""Real instances in processes of their own, and a real router in this one: a cluster without Ray."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cluster.handshake import draw_secret
from cluster.instance.config import InstanceInfo
from cluster.pb import baton_pb2
from cluster.role import InstanceRole
from cluster.snapshot import InstanceSnapshot
from router.client import BatonClient
from router.config import RouterConfig
from router.service import RouterService
from tests.integration.instance_process import InstanceProcess, make_config

MODEL_PATH = Path(__file__).parents[2] / "deploy" / "models" / "baton-tiny"


class LocalCluster:
    """`async with LocalCluster(num_decode=2) as cluster`: serves when entered, and leaves no process behind."""

    def __init__(
        self,
        *,
        num_prefill: int = 1,
        num_decode: int = 1,
        num_mixed: int = 0,
        model_path: Path = MODEL_PATH,
        router: dict[str, Any] | None = None,
        failpoints: str = "",
        nodes: dict[str, str] | None = None,
        num_ranks: dict[str, int] | None = None,
        **options: Any,
    ) -> None:
        """`nodes`: what the host of each instance is called; all are on this one. `num_ranks`: of each instance."""
        counts = {"prefill": num_prefill, "decode": num_decode, "mixed": num_mixed}
        self._roles = {f"{role}-{index}": role for role, count in counts.items() for index in range(count)}
        self._model_path = model_path
        self._router_options = router or {}
        self.secret = draw_secret()
        self._failpoints = failpoints
        self._environment = {
            **os.environ,
            "BATON_FAILPOINTS": failpoints,
            "BATON_TEST_SECRET": self.secret.value.hex(),
        }
        self._options, self._nodes, self._num_ranks = options, nodes or {}, num_ranks or {}
        self._processes: dict[str, InstanceProcess | asyncio.subprocess.Process] = {}
        self.infos: dict[str, InstanceInfo] = {}

    async def __aenter__(self) -> Self:
        try:
            infos = await asyncio.gather(*(self._spawn(name, role) for name, role in self._roles.items()))
            self.infos = {info.name: info for info in infos}
            await self._start_router()
        except BaseException:
            await self._end_processes()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.client.close()
        await self.service.stop()
        await self._end_processes()

    async def _spawn(self, name: str, role: str) -> InstanceInfo:
        self._processes[name] = process = self._make_process(
            name, role, {**self._options, **self._node(name), **self._engine(name)}
        )
        return await process.started()

    def _node(self, name: str) -> dict[str, str]:
        return {"node": self._nodes[name]} if name in self._nodes else {}

    def _engine(self, name: str) -> dict[str, Any]:
        return {"engine": {**self._options.get("engine", {}), "tensor_parallel_size": self._num_ranks.get(name, 1)}}

    def _make_process(self, name: str, role: str, options: dict[str, Any]) -> InstanceProcess:
        config = make_config(name, InstanceRole(role), self._model_path, self.secret, options)
        return InstanceProcess(config, self._failpoints)

    async def _start_router(self) -> None:
        config = RouterConfig(
            name="router",
            deployment="test",
            model_name="baton-tiny",
            model_path=str(self._model_path),
            secret=self.secret,
            term=1,
            grpc_port=0,
            http_port=0,
            **self._router_options,
        )
        self.service = RouterService(config)
        self._news = asyncio.Event()
        self._listen_to_snapshots()
        self.info = await self.service.start()
        self.client = BatonClient(self.info.grpc_address)
        await self.service.set_instances(self.infos.values())
        await self.until(lambda status: all(it.status == "RUNNING" for it in status.instances))

    def _listen_to_snapshots(self) -> None:
        router = self.service.router
        take = router.instances.on_snapshot

        def on_snapshot(snapshot: InstanceSnapshot) -> None:
            take(snapshot)
            self._news.set()

        router.instances.on_snapshot = on_snapshot  # type: ignore[method-assign]

    async def until(self, holds: Callable[[baton_pb2.ClusterStatus], bool], timeout_s: float = 10.0) -> None:
        """Looks again at each snapshot that arrives. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not holds(self.service.router.status()):
                self._news.clear()
                await self._news.wait()

    async def until_empty(self) -> None:
        """Every instance that lives has let go of everything."""
        await self.until(is_empty)

    def kill(self, name: str) -> None:
        self._processes[name].kill()

    async def restart(self, name: str) -> None:
        """What the controller does with an instance that died: another life, and the router told."""
        await self._processes[name].wait()
        self.infos[name] = await self._spawn(name, self._roles[name])
        await self.service.set_instances(self.infos.values())
        await self.until(lambda status: all(it.status == "RUNNING" for it in status.instances))

    def freeze(self, name: str) -> None:
        self._processes[name].send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        self._processes[name].send_signal(signal.SIGCONT)

    async def _end_processes(self) -> None:
        await asyncio.gather(*(_end(process) for process in self._processes.values()))


async def _end(process: InstanceProcess | asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGCONT)
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
    await process.wait()


def is_empty(status: baton_pb2.ClusterStatus) -> bool:
    return status.num_waiting_requests == status.num_running_requests == 0 and all(
        instance.num_sequences == instance.num_reserved_blocks == instance.num_leaked_blocks == 0
        and instance.num_free_blocks == instance.num_blocks
        for instance in status.instances
        if instance.status == "RUNNING"
    )
