"""A real Ray cluster whose nodes are hosts of a network, each with room for one instance."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from tests.integration.baton_process import BATON, environment
from tests.integration.ray_process import ray_node
from tests.netns.hosts import Host, run_on
from tests.netns.network import Network

HEAD_PORT = 6379
NUM_CPUS = 1


@contextmanager
def ray_cluster(network: Network, folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which `baton` finds it; the head is on the first host."""
    env = environment(folder, RAY_AUTH_MODE="disabled")
    head, *others = network.hosts
    with ExitStack() as nodes:
        nodes.enter_context(_node(head, env, "--head", f"--port={HEAD_PORT}", "--include-dashboard=false"))
        env["RAY_ADDRESS"] = f"{head.address}:{HEAD_PORT}"
        for host in others:  # one by one: a node gives itself 30 s to start
            nodes.enter_context(_node(host, env, f"--address={env['RAY_ADDRESS']}"))
        yield env


def baton_on(host: Host, env: dict[str, str], *arguments: object) -> str:
    """What `baton ...` prints there."""
    return run_on(host, [str(BATON), *map(str, arguments)], env)


def _node(host: Host, env: dict[str, str], *arguments: str) -> AbstractContextManager[None]:
    own = [f"--node-ip-address={host.address}", f"--node-name={host.name}", f"--num-cpus={NUM_CPUS}"]
    return ray_node(env, *own, *arguments, enter=host.enter)
