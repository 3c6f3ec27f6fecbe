"""A real Ray cluster over two hosts: the prefill pool on one, the decode pool on the other."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.baton_process import BATON, environment, iter_lines, next_line, write_deployment
from tests.netns.hosts import Host, why_not
from tests.netns.network import mesh

pytestmark = [pytest.mark.netns, pytest.mark.timeout(240)]

RAY = Path(sys.executable).with_name("ray")


@contextmanager
def ray_node(host: Host, env: dict[str, str], *arguments: str) -> Iterator[None]:
    """A node with room for one instance."""
    # Ray's sockets live below its temporary folder, and their paths may not be long.
    with tempfile.TemporaryDirectory(prefix="baton-ray-", ignore_cleanup_errors=True) as folder:
        command = [*host.enter, str(RAY), "start", "--block", "--disable-usage-stats", "--num-cpus=1", *arguments]
        command += [f"--node-ip-address={host.address}", "--object-store-memory=80000000", f"--temp-dir={folder}"]
        node = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            next_line(iter_lines(node), "Ray runtime started")
            yield
        finally:
            node.terminate()
            node.communicate(timeout=30)


def on(host: Host, env: dict[str, str], *arguments: object) -> str:
    command = [*host.enter, str(BATON), *map(str, arguments)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pools_on_two_hosts_hand_over_by_tcp(tmp_path: Path) -> None:
    if reason := why_not():
        pytest.skip(reason)
    file = write_deployment(tmp_path, resources={"cpus": 1})
    with mesh(2) as network:
        a, b = network.hosts
        env = environment(tmp_path, RAY_AUTH_MODE="disabled")
        with (
            ray_node(a, env, "--head", "--port=6379", "--include-dashboard=false"),
            ray_node(b, env, f"--address={a.address}:6379"),
        ):
            env["RAY_ADDRESS"] = f"{a.address}:6379"
            on(a, env, "up", file, "--detach")
            on(a, env, "generate", "hello", "--max-tokens", "8")
            status = on(a, env, "status")
            on(a, env, "down", "test")
    assert "tcp" in status
    assert "shm" not in status
