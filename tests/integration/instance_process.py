"""One instance in a process of its own, without Ray; its further ranks are processes of their own."""

import asyncio
import os
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cluster import failpoints
from cluster.instance.config import EngineConfig, HandoverConfig, InstanceConfig, InstanceInfo
from cluster.instance.instance import Instance
from cluster.links.config import LinkConfig
from cluster.role import InstanceRole
from cluster.secret import ClusterSecret
from deploy.roles import ROLE_POLICIES
from tests.forked import fork_server
from tests.integration.rank_processes import follower_processes
from tests.netns.hosts import Host, enter_namespace

START_TIMEOUT_S = 60.0


class InstanceProcess:
    """Serves until `stdin` is closed, or its parent is gone. Otherwise as a process of asyncio's.

    `options`: `engine`, `links` and `handover` hold fields of their configurations, `host` is where it listens, `node`
    what that host is called. `armed` is what BATON_FAILPOINTS would say; `on` the host it runs on, if not this one.
    """

    def __init__(self, config: InstanceConfig, armed: str = "", on: Host | None = None) -> None:
        context = fork_server()
        self.stdin, theirs = context.Pipe()
        has_children = config.engine.tensor_parallel_size > 1  # which a daemon must not
        self._process = context.Process(target=_run, args=(theirs, config, armed, on), daemon=not has_children)
        self._process.start()
        theirs.close()

    async def started(self) -> InstanceInfo:
        """EOFError when it has ended instead."""
        assert await asyncio.to_thread(self.stdin.poll, START_TIMEOUT_S), "no instance in time"
        info: InstanceInfo = self.stdin.recv()
        return info

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    async def wait(self) -> None:
        await asyncio.to_thread(self._process.join)


def make_config(
    name: str, role: InstanceRole, model_path: Path, secret: ClusterSecret, options: dict[str, Any]
) -> InstanceConfig:
    return InstanceConfig(
        name=name,
        role=role,
        model_path=str(model_path),
        secret=secret,
        host=options.get("host", "127.0.0.1"),
        node=options.get("node", ""),
        engine=EngineConfig(**{"kv_cache_memory_bytes": 32 << 20, "num_threads": 1, **options.get("engine", {})}),
        links=LinkConfig(**options.get("links", {})),
        handover=HandoverConfig(**options.get("handover", {})),
        front_timeout_s=options.get("front_timeout_s", 2.0),
    )


def _run(pipe: Connection, config: InstanceConfig, armed: str, on: Host | None) -> None:
    if on is not None:
        enter_namespace(on.namespace)
    failpoints.arm_from_environment(armed)
    asyncio.run(_serve(pipe, config))


async def _serve(pipe: Connection, config: InstanceConfig) -> None:
    with follower_processes(config.engine.tensor_parallel_size, secret=config.secret) as (_, addresses):
        instance = Instance(replace(config, rank_addresses=tuple(addresses)), ROLE_POLICIES)
        pipe.send(await instance.start())
        await asyncio.to_thread(pipe.poll, None)  # it is closed: nothing is ever said
        await instance.stop()
