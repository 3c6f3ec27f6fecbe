"""`baton up` to `baton down` on a Ray of its own, as a user types them."""

import os
import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.integration.baton_process import BatonUp, environment, is_alive, run_baton, status, write_deployment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@pytest.fixture
def env(tmp_path):
    return environment(tmp_path)


def pids(cluster):
    return {one["instance"]: one["pid"] for one in cluster["instances"]}


def rank_pids():
    """Of all ranks that are not their instance's first."""
    titles = {int(it.parent.name): it.read_bytes() for it in Path("/proc").glob("[0-9]*/cmdline")}
    return [pid for pid, title in titles.items() if title.startswith(b"ray::RankProcess")]


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


def test_ranks_are_placed_started_and_made_again_with_their_instance(tmp_path, env):
    engine = {"kv_cache_memory_bytes": "8MiB", "num_threads": 1, "tensor_parallel_size": 2}
    file = write_deployment(tmp_path, resources={"cpus": 0.2}, engine=engine)
    with BatonUp(file, env) as up:
        done = run_baton("generate", "hello", "--max-tokens", "5", "--temperature", "0", env=env)
        assert done.returncode == 0, done.stderr
        ranks = rank_pids()
        assert len(ranks) == 2, "rank 1 of both instances"
        os.kill(ranks[0], signal.SIGKILL)
        up.until(": gone")
        up.until(": running")
        again = run_baton("generate", "hello", "--max-tokens", "5", "--temperature", "0", env=env)
        assert again.stdout == done.stdout, again.stderr
        assert len(rank_pids()) == 2
        up.process.send_signal(signal.SIGTERM)
        up.until("test is down")
        assert up.process.wait(30) == 0
    assert not rank_pids()


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


def refused(file, env, *arguments):
    """The one line that says why it does not come up."""
    done = run_baton("up", file, *arguments, env=env)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_more_than_the_cluster_has_is_refused(tmp_path, env):
    file = write_deployment(tmp_path, resources={"cpus": 1000.0})
    assert "not enough CPU: the deployment needs 2000, " in refused(file, env)


def test_a_checkpoint_of_the_wrong_shape_is_refused_by_name_also_detached(tmp_path, env):
    file = write_deployment(tmp_path)
    weights = load_file(tmp_path / "checkpoint/model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"][:-1].clone()
    save_file(weights, tmp_path / "checkpoint/model.safetensors")
    assert "model.norm.weight" in refused(file, env, "--detach")
    assert run_baton("down", env=env).returncode == 1
