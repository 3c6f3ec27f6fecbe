"""A real Ray cluster over four hosts: which of them prefills and which decodes follows from what their links give."""

import json
import re
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import yaml

from tests.integration.baton_process import write_deployment
from tests.integration.local_cluster import MODEL_PATH
from tests.netns.hosts import Host, run_on, why_not
from tests.netns.network import mesh
from tests.netns.ray_hosts import NUM_CPUS, baton_on, ray_cluster

pytestmark = [pytest.mark.netns, pytest.mark.timeout(300)]

NUM_TOKENS = 400
NUM_REQUESTS = 5
FAST_BYTES_PER_S, GOOD_BYTES_PER_S, BAD_BYTES_PER_S = 125e6, 62.5e6, 0.625e6


def write(folder: Path) -> Path:
    file = write_deployment(folder, resources={"cpus": NUM_CPUS})
    document: dict[str, Any] = yaml.safe_load(file.read_text())
    document["spec"]["model"] = {"path": str(MODEL_PATH), "max_model_len": 1024}
    document["spec"]["placement"] = {"probe_budget_s": 5, "replace": "off"}
    file.write_text(yaml.safe_dump(document))
    return file


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


def test_the_assignment_changes_when_a_link_is_slowed_and_is_worth_it(tmp_path: Path) -> None:
    if reason := why_not():
        pytest.skip(reason)
    file = write(tmp_path)
    rates = {("a", "b"): FAST_BYTES_PER_S, ("c", "d"): GOOD_BYTES_PER_S}
    with mesh(4, bytes_per_s=GOOD_BYTES_PER_S / 8, rates=rates) as network, ray_cluster(network, tmp_path) as env:
        a = network["a"]
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
