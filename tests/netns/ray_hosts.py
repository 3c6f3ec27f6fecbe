"""A real Ray cluster whose nodes are hosts of a network, each with room for one instance."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.integration.baton_process import BATON, environment, iter_lines, next_line
from tests.netns.hosts import Host, run_on
from tests.netns.network import Network

RAY = Path(sys.executable).with_name("ray")
HEAD_PORT = 6379
NUM_CPUS = 1


@contextmanager
def ray_cluster(network: Network, folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which `baton` finds it; the head is on the first host."""
    env = environment(folder, RAY_AUTH_MODE="disabled")
    head, *others = network.hosts
    with ExitStack() as ends:
        nodes: list[subprocess.Popen[str]] = []
        ends.callback(_end, nodes)
        nodes.append(_start(head, env, ends, "--head", f"--port={HEAD_PORT}", "--include-dashboard=false"))
        _wait_for(nodes[0])
        env["RAY_ADDRESS"] = f"{head.address}:{HEAD_PORT}"
        for host in others:  # one by one: a node gives itself 30 s to start
            nodes.append(_start(host, env, ends, f"--address={env['RAY_ADDRESS']}"))
            _wait_for(nodes[-1])
        yield env


def baton_on(host: Host, env: dict[str, str], *arguments: object) -> str:
    """What `baton ...` prints there."""
    return run_on(host, [str(BATON), *map(str, arguments)], env)


def _start(host: Host, env: dict[str, str], ends: ExitStack, *arguments: str) -> "subprocess.Popen[str]":
    # Ray's sockets live below its temporary folder, and their paths may not be long.
    folder = tempfile.TemporaryDirectory(prefix="baton-ray-", ignore_cleanup_errors=True)
    ends.callback(folder.cleanup)
    command = [*host.enter, str(RAY), "start", "--block", "--disable-usage-stats", f"--num-cpus={NUM_CPUS}"]
    command += [f"--node-ip-address={host.address}", f"--node-name={host.name}", f"--temp-dir={folder.name}"]
    command += ["--object-store-memory=80000000", *arguments]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _wait_for(node: "subprocess.Popen[str]") -> None:
    next_line(iter_lines(node), "Ray runtime started")


def _end(nodes: "list[subprocess.Popen[str]]") -> None:
    for node in nodes:
        node.terminate()
    for node in nodes:
        try:
            node.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            node.kill()  # its children go with the host
            node.communicate()
