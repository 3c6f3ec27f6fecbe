"""Ranks on GPUs without Ray: rank 0 in the process that asks, with the first GPU; each other in one of its own."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from cluster.model.runner import ModelRunner
from cluster.ranks.errors import RankLost
from cluster.ranks.group import RankGroup
from cluster.ranks.setup import RankSetup
from cluster.secret import SECRET_BYTES, ClusterSecret
from tests.unit.model.factories import BLOCK_SIZE

SECRET = ClusterSecret(bytes(SECRET_BYTES))
START_S = 120.0  # torch, CUDA and Triton's kernels


@contextmanager
def leading_runner(
    checkpoint: Path, num_ranks: int, *, arm: str = "", on_lost: Callable[[RankLost], None] = lambda lost: None
) -> Iterator[tuple[ModelRunner, dict[int, BaseProcess]]]:
    """With the processes of the other ranks. `arm` is what BATON_FAILPOINTS would say in them."""
    pytest.importorskip("cupy", reason="KV on a GPU moves by cupy: pip install 'baton[gpu]'")
    import torch

    from cluster.ranks.load import load_leading_gpu

    setup = RankSetup(
        world_size=num_ranks,
        model_path=str(checkpoint),
        dtype="float32",
        block_size=BLOCK_SIZE,
        device="cuda",
        max_num_seqs=20,
        max_num_batched_tokens=512,
        gpu_memory_utilization=0.05,
    )
    group = RankGroup()
    group.tell_of_loss(on_lost)
    context = multiprocessing.get_context("spawn")
    processes, addresses = {}, []
    try:
        for rank in range(1, num_ranks):
            ours, theirs = context.Pipe(duplex=False)
            processes[rank] = context.Process(target=_follow, args=(theirs, rank, arm), daemon=True)
            processes[rank].start()
            assert ours.poll(START_S), "a rank does not start"
            addresses.append(ours.recv())
        device = torch.device("cuda", 0)
        part = load_leading_gpu(setup, group, addresses, SECRET, "127.0.0.1", device, lambda progress: None)
        yield part.runner, processes
    finally:
        group.close()
        for process in processes.values():
            process.kill()
            process.join()


def _follow(pipe: Connection, rank: int, arm: str) -> None:
    """Sees one GPU, as a Ray actor does."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    os.environ["CUDA_VISIBLE_DEVICES"] = seen[rank] if len(seen) > rank else str(rank)
    from cluster import failpoints
    from cluster.ranks.follower import Follower

    failpoints.arm_from_environment(arm)
    follower = Follower(SECRET, "127.0.0.1")
    pipe.send(follower.address)
    follower.run()
