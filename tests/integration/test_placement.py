"""Placement by measured links on a real Ray of two nodes; both on this machine, so that what they measure is alike."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.integration.baton_process import environment, run_baton, status, write_deployment
from tests.integration.ray_process import free_ports, ray_node

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory) -> Iterator[dict[str, str]]:
    """The environment of users of a Ray of nodes a and b, each with room for two instances."""
    env = environment(tmp_path_factory.mktemp("home"), RAY_AUTH_MODE="disabled")
    (port,) = free_ports(1)
    room = ["--node-ip-address=127.0.0.1", "--num-cpus=2"]
    with (
        ray_node(env, "--head", f"--port={port}", "--include-dashboard=false", "--node-name=a", *room),
        ray_node(env, f"--address=127.0.0.1:{port}", "--node-name=b", *room),
    ):
        yield {**env, "RAY_ADDRESS": f"127.0.0.1:{port}"}


def write(folder: Path, *, num_decode: int = 2, **spec: object) -> Path:
    file = write_deployment(folder, resources={"cpus": 1})
    document = yaml.safe_load(file.read_text())
    document["spec"]["pools"][1]["replicas"] = num_decode
    document["spec"] |= {"placement": {"probe_budget_s": 4.0}, **spec}
    file.write_text(yaml.safe_dump(document))
    return file


def test_up_probes_places_and_says_so_and_place_knows_the_same(two_nodes, tmp_path):
    file = write(tmp_path)
    probed = run_baton("place", file, env=two_nodes)
    assert probed.returncode == 0, probed.stderr
    assert "probing links: round 1 of 1" in probed.stderr
    done = run_baton("up", file, "--detach", env=two_nodes)
    try:
        assert done.returncode == 0, done.stderr
        assert "placement: probing links: round 1 of 1" in done.stdout
        assert "from prefill to decode" in done.stdout
        words = [line.split() for line in done.stdout.splitlines() if "placed on" in line]
        placed = {instance.rstrip(":"): node for instance, *_, node in words}
        assert sorted(placed) == ["decode-0", "decode-1", "prefill-0"]
        assert set(placed.values()) == {"a", "b"}, "one has no room for three"
        cluster = status(two_nodes)
        assert {one["instance"]: one["node"] for one in cluster["instances"]} == placed
        live = run_baton("place", file, env={**two_nodes, "RAY_ADDRESS": ""})
        assert live.returncode == 0, live.stderr
        assert "probing" not in live.stderr
    finally:
        run_baton("down", env=two_nodes)


def test_a_pool_without_room_on_any_node_is_refused_by_its_field(two_nodes, tmp_path):
    file = write(tmp_path, num_decode=1)
    document = yaml.safe_load(file.read_text())
    document["spec"]["pools"][0]["resources"] = {"cpus": 3}
    file.write_text(yaml.safe_dump(document))
    done = run_baton("up", file, env=two_nodes)
    assert done.returncode == 1
    assert "spec.pools[0].resources.cpus: an instance needs 3 CPUs; the node with most" in done.stderr.splitlines()[-1]


def test_moving_and_flipping_instances_loses_nothing_of_running_requests(two_nodes, tmp_path):
    command = [sys.executable, "-m", "tests.integration.replacing_process", str(write(tmp_path))]
    done = subprocess.run(command, env=two_nodes, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["same"], "moved or not, the tokens are the same"
    assert found["lengths"] == [400] * 4
    assert found["nodes"] == {name: node for name, (_, node) in found["after"].items()}
    moved, flipped = found["moved"], found["flipped"]
    assert found["after"][moved][1] != found["before"][moved]
    assert [found["after"][name][0] for name in (moved, flipped, "prefill-0")] == ["decode", "prefill", "decode"]
    (gone,) = [event for event in found["events"] if ": gone " in event]
    assert gone.startswith(f"{moved}: gone moves to ")


def test_nodes_that_share_a_name_are_told_apart():
    from deploy.ray_nodes import named

    entries = [
        {"NodeID": letter * 20, "NodeName": name, "NodeManagerAddress": "10.0.0.1"}
        for letter, name in (("1", "10.0.0.1"), ("2", "10.0.0.1"), ("3", "c"))
    ]
    found = named(entries, {"3" * 20: {"CPU": 2.0, "GPU": 1.5, "memory": 1e9}})
    assert [node.name for node in found] == ["10.0.0.1#111111", "10.0.0.1#222222", "c"]
    assert (found[2].node.num_cpus, found[2].node.num_gpus, found[2].node.memory_bytes) == (2.0, 1, 1_000_000_000)
    assert found[0].node.num_cpus == 0.0
