"""The router's process is killed under `baton up`: Ray makes it again where it was, and streams go on."""

import os
import signal
from pathlib import Path

import pytest

from router.client import BatonClient
from tests.integration.baton_process import BatonUp, environment, status, write_deployment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

_LISTEN = "0A"  # as /proc/net/tcp says it


def listener(port: int) -> int:
    """The pid of the process that listens there."""
    tables = [Path("/proc/net", name).read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    sockets = [line.split() for table in tables for line in table]
    (inode,) = [it[9] for it in sockets if it[3] == _LISTEN and int(it[1].rpartition(":")[2], 16) == port]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(file) == f"socket:[{inode}]" for file in (process / "fd").iterdir()):
                return int(process.name)
        except OSError:  # it has ended, or is not ours
            continue
    raise AssertionError(f"nobody listens on port {port}")


async def test_streams_outlive_the_router_s_process(tmp_path: Path) -> None:
    env = environment(tmp_path)
    with BatonUp(write_deployment(tmp_path), env) as up:
        address = up.ready_line.split("gRPC ")[1].split(",")[0]
        options = {"max_tokens": 300, "ignore_eos": True, "seed": 5, "timeout_s": 100}
        async with BatonClient(address) as client:
            expected = await client.complete("hello", **options)
            deltas = client.generate("hello", **options)
            got = [await anext(deltas) for _ in range(5)]
            os.kill(listener(int(address.rpartition(":")[2])), signal.SIGKILL)
            up.until("router: gone")
            got += [delta async for delta in deltas]
            assert [token for delta in got for token in delta.token_ids] == list(expected.token_ids)
            assert "".join(delta.text for delta in got) == expected.text
            assert got[-1].finish_reason
        assert [one["status"] for one in status(env)["instances"]] == ["RUNNING"] * 2
