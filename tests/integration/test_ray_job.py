"""`ray job submit -- baton up FILE` on a real Ray head, with token authentication on and off."""

import contextlib
import re
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.integration.baton_process import (
    environment,
    is_alive,
    iter_lines,
    next_line,
    run_baton,
    status,
    write_deployment,
)
from tests.integration.ray_process import RAY, free_ports, ray_node

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

AUTHENTICATION = {
    "off": {"RAY_AUTH_MODE": "disabled"},
    "on": {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4},
}


@pytest.fixture(scope="module", params=AUTHENTICATION)
def head(request, tmp_path_factory) -> Iterator[dict[str, str]]:
    """A Ray head of the test's own; yields the environment of its users."""
    env = environment(tmp_path_factory.mktemp("home"), **AUTHENTICATION[request.param])
    port, dashboard_port, agent_port, client_port = free_ports(4)
    ports = [f"--port={port}", f"--dashboard-port={dashboard_port}", f"--dashboard-agent-listen-port={agent_port}"]
    ports += [f"--ray-client-server-port={client_port}"]
    with ray_node(env, "--head", "--num-cpus=2", "--include-dashboard=true", *ports):
        wait_for_port(dashboard_port)
        yield {**env, "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard_port}", "HEAD": f"127.0.0.1:{port}"}


def wait_for_port(port: int, timeout_s: float = 60.0) -> None:
    """The dashboard opens its port after Ray says that it has started."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise AssertionError(f"nothing listens on port {port}")


def test_a_job_serves_until_it_is_stopped(head, tmp_path):
    write_deployment(tmp_path / "work")
    submit = [str(RAY), "job", "submit", "--submission-id=serve", f"--working-dir={tmp_path / 'work'}"]
    job = subprocess.Popen(
        [*submit, "--", "baton", "up", "test.yaml"],
        env=head,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = iter_lines(job)
    address = re.search(r"gRPC (\S+),", next_line(lines, " is up: "))[1]
    cluster = status(head, "--address", address)
    pids = [one["pid"] for one in cluster["instances"]]
    done = run_baton("generate", "hello", "--max-tokens", "5", "--address", address, env=head)
    assert done.returncode == 0, done.stderr

    subprocess.run([str(RAY), "job", "stop", "serve"], env=head, check=True, capture_output=True)
    job.communicate(timeout=30)
    assert not any(map(is_alive, pids))
    assert run_baton("status", "--address", address, env=head).returncode == 1


def test_detached_on_a_cluster_it_outlives_its_command_and_others_need_the_token(head, tmp_path):
    env = {**head, "RAY_ADDRESS": head["HEAD"]}
    file = write_deployment(tmp_path)
    if head["RAY_AUTH_MODE"] == "token":
        stranger = run_baton("up", file, env={**env, "RAY_AUTH_TOKEN": "f" * 64})
        assert stranger.returncode == 1
        assert stranger.stderr.count("\n") == 1, stranger.stderr
        assert "token is missing or incorrect" in stranger.stderr
    done = run_baton("up", file, "--detach", env=env)
    assert done.returncode == 0, done.stderr
    pids = [one["pid"] for one in status(env)["instances"]]
    again = run_baton("up", file, env=env)
    assert "test is running already" in again.stderr
    assert run_baton("down", "test", env=env).stdout == "test is down\n"
    assert not any(map(is_alive, pids))
