"""A real Ray cluster over two hosts: the prefill pool on one, the decode pool on the other."""

from pathlib import Path

import pytest

from tests.integration.baton_process import write_deployment
from tests.netns.hosts import why_not
from tests.netns.network import mesh
from tests.netns.ray_hosts import NUM_CPUS, baton_on, ray_cluster

pytestmark = [pytest.mark.netns, pytest.mark.timeout(240)]


def test_pools_on_two_hosts_hand_over_by_tcp(tmp_path: Path) -> None:
    if reason := why_not():
        pytest.skip(reason)
    file = write_deployment(tmp_path, resources={"cpus": NUM_CPUS})
    with mesh(2) as network, ray_cluster(network, tmp_path) as env:
        a = network["a"]
        baton_on(a, env, "up", file, "--detach")
        baton_on(a, env, "generate", "hello", "--max-tokens", "8")
        status = baton_on(a, env, "status")
        baton_on(a, env, "down", "test")
    assert "tcp" in status
    assert "shm" not in status
