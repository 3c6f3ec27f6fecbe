"""A real Ray cluster over four hosts: which of them prefills and which decodes follows from what their links give.

And goes on to: an instance that prefills where the uplink becomes slow under way exchanges its role with another.
One cluster for both: Ray takes its time to start.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import yaml

from tests.integration.baton_process import BATON, iter_lines, next_line, write_deployment
from tests.integration.local_cluster import MODEL_PATH
from tests.netns.hosts import ROOT, Host, run_on, why_not
from tests.netns.network import Network, mesh
from tests.netns.ray_hosts import NUM_CPUS, baton_on, ray_cluster

pytestmark = [pytest.mark.netns, pytest.mark.timeout(300)]

NUM_TOKENS = 400
NUM_REQUESTS, NUM_REQUESTS_UNDER_WAY = 5, 60
FAST_BYTES_PER_S, GOOD_BYTES_PER_S, POOR_BYTES_PER_S, BAD_BYTES_PER_S = 125e6, 62.5e6, 7.8e6, 0.625e6


@dataclass(frozen=True, slots=True)
class Cluster:
    network: Network
    env: dict[str, str]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if reason := why_not():
        pytest.skip(reason)
    with mesh(4, bytes_per_s=POOR_BYTES_PER_S) as network, ray_cluster(network, tmp_path_factory.mktemp("ray")) as env:
        yield Cluster(network, env)


def write(folder: Path, num_decode: int = 1, **placement: Any) -> Path:
    """One prefill instance; a host for each."""
    file = write_deployment(folder, resources={"cpus": NUM_CPUS})
    document: dict[str, Any] = yaml.safe_load(file.read_text())
    document["spec"]["model"] = {"path": str(MODEL_PATH), "max_model_len": 1024}
    document["spec"]["pools"][1]["replicas"] = num_decode
    document["spec"]["placement"] = {"probe_budget_s": 5, **placement}
    file.write_text(yaml.safe_dump(document))
    return file


def shape(network: Network, rates: dict[tuple[str, str], float]) -> None:
    """Both ways; all others are worse than these."""
    for way in permutations("abcd", 2):
        network.shape(*way, rates.get(way, rates.get(way[::-1], POOR_BYTES_PER_S)))


def up(host: Host, env: dict[str, str], file: Path) -> tuple[str, dict[str, str]]:
    """Its gRPC front's address, and on which host each instance is."""
    said = baton_on(host, env, "up", file, "--detach")
    print(said)
    address = re.search(r"gRPC (\S+),", said)
    assert address
    status = json.loads(baton_on(host, env, "status", "--json"))
    return address[1], {instance["instance"]: instance["node"] for instance in status["instances"]}


def second_tokens_s(host: Host, env: dict[str, str], address: str) -> list[float]:
    module = [sys.executable, "-m", "tests.netns.second_tokens", address]
    seconds = json.loads(run_on(host, [*module, str(NUM_TOKENS), str(NUM_REQUESTS)], env))
    print("second_token, ms:", *(f"{each * 1e3:.0f}" for each in seconds))
    return seconds


def predicted_s(said: str, which: str) -> float:
    """Of one line of `baton place`."""
    found = re.search(rf"{which} +([\d.e+]+) (ms|s)", said)
    assert found, said
    return float(found[1]) * {"ms": 1e-3, "s": 1.0}[found[2]]


def test_the_assignment_changes_when_a_link_is_slowed_and_is_worth_it(cluster: Cluster, tmp_path: Path) -> None:
    network, env, a = cluster.network, cluster.env, cluster.network["a"]
    file = write(tmp_path, replace="off")
    shape(network, {("a", "b"): FAST_BYTES_PER_S, ("c", "d"): GOOD_BYTES_PER_S})
    address, places = up(a, env, file)
    assert places in ({"prefill-0": "a", "decode-0": "b"}, {"prefill-0": "b", "decode-0": "a"})
    source, target = places["prefill-0"], places["decode-0"]
    for way in ((source, target), (target, source)):
        network.shape(*way, BAD_BYTES_PER_S)
    worst_s = second_tokens_s(a, env, address)
    baton_on(a, env, "down", "test")

    address, places = up(a, env, file)
    assert set(places.values()) == {"c", "d"}
    chosen_s = second_tokens_s(a, env, address)
    predicted = baton_on(a, env, "place", file, "--explain", "--in-flight", 0, "--prompt-tokens", NUM_TOKENS)
    status = baton_on(a, env, "status")
    baton_on(a, env, "down", "test")
    print(predicted, status)
    assert "tcp" in status
    assert "shm" not in status
    gain_s = predicted_s(predicted, "worst") - predicted_s(predicted, "this assignment")
    gains_s = [worst - chosen for worst, chosen in zip(worst_s, chosen_s, strict=True)]
    num_right = sum(0.8 * gain_s <= gain <= 1.2 * gain_s for gain in gains_s)
    print(
        f"second_token: {gain_s * 1e3:.0f} ms less were predicted, {median(gains_s) * 1e3:.0f} less in the median;"
        f" {num_right} of {len(gains_s)} requests right"
    )
    assert min(gains_s) > 0
    assert 0.8 * gain_s <= median(gains_s) <= 1.2 * gain_s


def test_roles_follow_the_links_under_way_and_no_request_is_lost(cluster: Cluster, tmp_path: Path) -> None:
    """Three hosts serve; the fourth is nowhere as good."""
    network, env, a = cluster.network, cluster.env, cluster.network["a"]
    file = write(tmp_path, num_decode=2, replace="apply", check_interval_s=2)
    shape(network, dict.fromkeys(permutations("abc", 2), GOOD_BYTES_PER_S))
    serving = subprocess.Popen(
        [*a.enter, str(BATON), "up", str(file)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = iter_lines(serving)
    home = next_line(lines, "prefill-0: placed on").split()[-1]
    address = next_line(lines, "test is up: gRPC ").split("gRPC ")[1].split(",")[0]
    command = [*a.enter, sys.executable, "-m", "tests.netns.second_tokens", address]
    traffic = subprocess.Popen(
        [*command, str(NUM_TOKENS), str(NUM_REQUESTS_UNDER_WAY)], env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    for name in set("abcd") - {home}:
        network.shape(home, name, BAD_BYTES_PER_S)
    print(next_line(lines, "prefill-0 exchange their roles"))
    print(next_line(lines, "placement: done"))
    said, _ = traffic.communicate(timeout=120)
    status = json.loads(baton_on(a, env, "status", "--json"))
    serving.terminate()
    serving.communicate(timeout=30)
    seconds = json.loads(said)
    print("second_token, ms:", *(f"{each * 1e3:.0f}" for each in seconds))
    assert traffic.returncode == 0
    assert len(seconds) == NUM_REQUESTS_UNDER_WAY
    roles = {instance["node"]: instance["role"] for instance in status["instances"]}
    assert roles.pop(home) == "decode"
    assert sorted(roles.values()) == ["decode", "prefill"]
    assert max(seconds[-5:]) < max(seconds[:5])
