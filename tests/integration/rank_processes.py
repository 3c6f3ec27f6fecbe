"""Instances of several ranks: rank 0 in this process, the others in processes of their own."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from cluster import failpoints
from cluster.engine.block_manager import BlockManager
from cluster.engine.engine import Engine
from cluster.engine.scheduler import Scheduler, SchedulerConfig
from cluster.model.runner import ModelRunner
from cluster.ranks.errors import RankLost
from cluster.ranks.follower import Follower
from cluster.ranks.group import RankGroup
from cluster.ranks.load import load_leader
from cluster.ranks.setup import RankSetup
from cluster.secret import SECRET_BYTES, ClusterSecret

SECRET = ClusterSecret(bytes(SECRET_BYTES))
BLOCK_SIZE = 8
NUM_BLOCKS = 64
PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Ranks:
    engine: Engine
    group: RankGroup
    processes: dict[int, BaseProcess]
    addresses: list[str]  # of ranks 1 and up

    def wait_until_ended(self) -> list[int | None]:
        """Exit codes of the other ranks' processes; None: it has not ended."""
        for process in self.processes.values():
            process.join(PATIENCE_S)
        return [process.exitcode for process in self.processes.values()]


@contextmanager
def follower_processes(
    world_size: int, arm: str = "", secret: ClusterSecret = SECRET
) -> Iterator[tuple[dict[int, BaseProcess], list[str]]]:
    """With the addresses of ranks 1 and up. `arm` is what BATON_FAILPOINTS would say in them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # imports once, not in every child
    processes, addresses = {}, []
    for rank in range(1, world_size):
        ours, theirs = context.Pipe(duplex=False)
        processes[rank] = context.Process(target=_follow, args=(theirs, secret, arm), daemon=True)
        processes[rank].start()
        theirs.close()
        addresses.append(ours.recv())
        ours.close()
    try:
        yield processes, addresses
    finally:
        for process in processes.values():
            process.kill()
            process.join()
            process.close()


@contextmanager
def ranks(
    checkpoint: Path, world_size: int, *, arm: str = "", on_lost: Callable[[RankLost], None] = lambda lost: None
) -> Iterator[Ranks]:
    setup = RankSetup(
        world_size=world_size,
        model_path=str(checkpoint),
        dtype="float32",
        block_size=BLOCK_SIZE,
        num_blocks=NUM_BLOCKS,
        num_threads=1,
    )
    group = RankGroup()
    group.tell_of_loss(on_lost)
    with follower_processes(world_size, arm) as (processes, addresses):
        try:
            runner = load_leader(setup, group, addresses, SECRET, "127.0.0.1")
            yield Ranks(make_engine(runner), group, processes, addresses)
        finally:
            group.close()


def make_engine(runner: ModelRunner) -> Engine:
    config = SchedulerConfig(max_num_seqs=8, max_num_batched_tokens=32, watermark_blocks=0, max_model_len=500)
    return Engine(Scheduler(config, BlockManager(NUM_BLOCKS, BLOCK_SIZE)), runner)


def _follow(pipe: Connection, secret: ClusterSecret, arm: str) -> None:
    torch.set_num_threads(1)
    failpoints.arm_from_environment(arm)
    follower = Follower(secret, "127.0.0.1")
    pipe.send(follower.address)
    pipe.close()
    follower.run()
