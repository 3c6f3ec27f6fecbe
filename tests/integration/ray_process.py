"""A node of a real Ray in processes of its own, away from any other Ray of this machine."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.integration.baton_process import iter_lines, next_line

RAY = Path(sys.executable).with_name("ray")


@contextmanager
def ray_node(env: dict[str, str], *arguments: str, enter: Sequence[str] = ()) -> Iterator[None]:
    """`ray start` with these arguments; `enter`: the command that runs it on another host of a network."""
    # Ray's sockets live below its temporary folder, and their paths may not be long.
    with tempfile.TemporaryDirectory(prefix="baton-ray-", ignore_cleanup_errors=True) as folder:
        command = [*enter, str(RAY), "start", "--block", "--disable-usage-stats", "--object-store-memory=80000000"]
        process = subprocess.Popen(
            [*command, f"--temp-dir={folder}", *arguments],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            next_line(iter_lines(process), "Ray runtime started")
            yield
        finally:
            _end_group(process)


def free_ports(count: int) -> list[int]:
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


def _end_group(process: "subprocess.Popen[str]") -> None:
    """All that `ray start` has started. (`ray stop` would end every Ray of this machine.)"""
    for number, timeout_s in ((signal.SIGTERM, 3), (signal.SIGKILL, 10)):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, number)
            process.communicate(timeout=timeout_s)
