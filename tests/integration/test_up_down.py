"""`baton up` to `baton down` on a Ray of its own, as a user types them."""

import os
import signal

import pytest

from tests.integration.baton_process import BatonUp, is_alive, run_baton, status, write_deployment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


def pids(cluster):
    return {one["instance"]: one["pid"] for one in cluster["instances"]}


def held(cluster):
    """What instances hold that are idle: all zero."""
    names = ("num_sequences", "num_reserved_blocks", "num_leaked_blocks")
    return [one[name] for one in cluster["instances"] for name in names]


def test_up_serves_survives_a_dead_instance_and_ends_on_a_signal_with_nothing_left(tmp_path, env):
    file = write_deployment(tmp_path)
    with BatonUp(file, env) as up:
        before = status(env)
        assert sorted(pids(before)) == ["decode-0", "prefill-0"]
        placed = run_baton("place", file, env=env)
        assert placed.returncode == 0, placed.stderr
        done = run_baton("generate", "hello", "--max-tokens", "5", "--stream", env=env)
        assert done.returncode == 0, done.stderr
        assert held(status(env)) == [0] * 6

        os.kill(pids(before)["decode-0"], signal.SIGKILL)
        assert "made again in 0.5 s" in up.until("decode-0: gone")
        up.until("decode-0: running")
        done = run_baton("generate", "hello again", "--max-tokens", "5", env=env)
        assert done.returncode == 0, done.stderr
        after = status(env)
        assert pids(after)["decode-0"] != pids(before)["decode-0"]
        assert pids(after)["prefill-0"] == pids(before)["prefill-0"]

        up.process.send_signal(signal.SIGTERM)
        up.until("test is down")
        assert up.process.wait(30) == 0
    assert not any(map(is_alive, pids(after).values()))
    assert run_baton("status", env=env).returncode == 1


def test_detached_it_goes_on_alone_until_it_is_taken_down(tmp_path, env):
    file = write_deployment(tmp_path)
    done = run_baton("up", file, "--detach", env=env)
    try:
        assert done.returncode == 0, done.stderr
        assert "test is up: gRPC 127.0.0.1:" in done.stdout
        running = pids(status(env))
        again = run_baton("up", file, env=env)
        assert again.returncode == 1
        assert "test is running already" in again.stderr
        assert again.stderr.count("\n") == 1
    finally:
        down = run_baton("down", env=env)
    assert (down.returncode, down.stdout) == (0, "test is down\n")
    assert not any(map(is_alive, running.values()))
