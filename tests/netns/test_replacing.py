"""A host whose uplink becomes slow under way: the instance that prefills there exchanges its role with another."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.baton_process import BATON, iter_lines, next_line, write_deployment
from tests.integration.local_cluster import MODEL_PATH
from tests.netns.hosts import ROOT, why_not
from tests.netns.network import mesh
from tests.netns.ray_hosts import NUM_CPUS, baton_on, ray_cluster

pytestmark = [pytest.mark.netns, pytest.mark.timeout(300)]

NUM_TOKENS, NUM_REQUESTS = 400, 60
GOOD_BYTES_PER_S, BAD_BYTES_PER_S = 62.5e6, 0.625e6


def write(folder: Path) -> Path:
    """One prefill and two decode instances, a host for each."""
    file = write_deployment(folder, resources={"cpus": NUM_CPUS})
    document: dict[str, Any] = yaml.safe_load(file.read_text())
    document["spec"]["model"] = {"path": str(MODEL_PATH), "max_model_len": 1024}
    document["spec"]["pools"][1]["replicas"] = 2
    document["spec"]["placement"] = {"probe_budget_s": 5, "replace": "apply", "check_interval_s": 2}
    file.write_text(yaml.safe_dump(document))
    return file


def test_roles_follow_the_links_and_no_request_is_lost(tmp_path: Path) -> None:
    if reason := why_not():
        pytest.skip(reason)
    file = write(tmp_path)
    with mesh(3, bytes_per_s=GOOD_BYTES_PER_S) as network, ray_cluster(network, tmp_path) as env:
        a = network["a"]
        up = subprocess.Popen(
            [*a.enter, str(BATON), "up", str(file)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lines = iter_lines(up)
        home = next_line(lines, "prefill-0: placed on").split()[-1]
        address = next_line(lines, "test is up: gRPC ").split("gRPC ")[1].split(",")[0]
        command = [*a.enter, sys.executable, "-m", "tests.netns.second_tokens", address]
        traffic = subprocess.Popen(
            [*command, str(NUM_TOKENS), str(NUM_REQUESTS)], env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for name in {"a", "b", "c"} - {home}:
            network.shape(home, name, BAD_BYTES_PER_S)
        print(next_line(lines, "prefill-0 exchange their roles"))
        print(next_line(lines, "placement: done"))
        said, _ = traffic.communicate(timeout=120)
        status = json.loads(baton_on(a, env, "status", "--json"))
        up.terminate()
        up.communicate(timeout=30)
    seconds = json.loads(said)
    print("second_token, ms:", *(f"{each * 1e3:.0f}" for each in seconds))
    assert traffic.returncode == 0
    assert len(seconds) == NUM_REQUESTS
    roles = {instance["node"]: instance["role"] for instance in status["instances"]}
    assert roles.pop(home) == "decode"
    assert sorted(roles.values()) == ["decode", "prefill"]
    assert max(seconds[-5:]) < max(seconds[:5])
