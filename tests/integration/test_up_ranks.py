"""`baton up` of instances of several ranks."""

import os
import signal
from pathlib import Path

import pytest

from tests.integration.baton_process import BatonUp, run_baton, write_deployment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


def rank_pids():
    """Of all ranks that are not their instance's first."""
    titles = {int(it.parent.name): it.read_bytes() for it in Path("/proc").glob("[0-9]*/cmdline")}
    return [pid for pid, title in titles.items() if title.startswith(b"ray::RankProcess")]


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
