"""What a GPU computes of a step, by two ranks in processes: in Triton's interpreter, over gloo, without recording."""

import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.model.kv_cache import KVCache
from cluster.model.parallel import join_gloo
from cluster.model.runner import ModelRunner
from cluster.ranks import gpu_part, load
from cluster.ranks.follower import Follower
from cluster.ranks.group import RankGroup
from cluster.ranks.leading_runner import LeadingRunner
from cluster.ranks.setup import RankSetup
from tests.integration.gpu_threads import GPU, install
from tests.integration.rank_processes import PATIENCE_S, SECRET
from tests.unit.links.fake_nccl import make_world
from tests.unit.model.factories import BLOCK_SIZE, checkpoint, make_engine, make_runner, make_sequence, run
from tests.unit.model.gpu_kernels import DEVICE

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(DEVICE.type == "cuda", reason="tests/gpu does it on GPUs"),
    pytest.mark.skipif("BATON_KERNEL_SHAPES" not in os.environ, reason="takes a minute: make test-kernels runs it"),
]


class SteppedRunner(ModelRunner):
    """As on a GPU, but that nothing is computed beside the host."""

    def __init__(self, model: Any, kv_cache: KVCache, gpu: Any, **others: Any) -> None:
        from cluster.model.gpu_steps import GpuSteps
        from cluster.model.triton_attention import TritonAttention

        super().__init__(model, kv_cache, gpu, **others)
        with torch.inference_mode():
            self._gpu_steps = self._steps = GpuSteps(model, kv_cache, TritonAttention(kv_cache, model.shard), gpu)
        self.num_recorded = 0
        graphs = self._gpu_steps.graphs
        run_graph = graphs.run

        def count(batch: Any) -> Any:
            self.num_recorded += 1
            return run_graph(batch)

        graphs.run = count

    def _wait(self) -> None:
        pass


class SteppedLeader(LeadingRunner, SteppedRunner):
    pass


def pretend(world: Any, patch: pytest.MonkeyPatch) -> None:
    install(world, patch)
    patch.setattr(load, "join_nccl", join)
    patch.setattr(load, "LeadingRunner", SteppedLeader)
    defaults = {**(gpu_part.load_gpu_part.__kwdefaults__ or {}), "make_runner": SteppedRunner}
    patch.setattr(gpu_part.load_gpu_part, "__kwdefaults__", defaults)


def join(store: Any, rank: int, world_size: int, *, device: torch.device, timeout_s: float) -> Any:
    return join_gloo(store, rank, world_size, host="127.0.0.1", timeout_s=timeout_s)


def follow(pipe: Connection) -> None:
    torch.set_num_threads(1)
    with make_world() as world:
        pretend(world, pytest.MonkeyPatch())
        follower = Follower(SECRET, "127.0.0.1")
        pipe.send(follower.address)
        follower.run()


@pytest.mark.parametrize("name", ["llama", "qwen3-tied-biased"])
def test_ranks_compute_chunks_and_recorded_steps_as_one_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right, found = ([make_sequence(n, request_id=str(n), max_tokens=4) for n in (5, 3)] for _ in range(2))
    run(make_engine(make_runner(name)), *right)
    ours, theirs = multiprocessing.get_context("spawn").Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=follow, args=(theirs,), daemon=True)
    process.start()
    group = RankGroup()
    try:
        assert ours.poll(PATIENCE_S)
        setup = RankSetup(
            world_size=2,
            model_path=str(Path(checkpoint(name))),
            dtype="float32",
            block_size=BLOCK_SIZE,
            device="cuda",
            max_num_seqs=2,
        )
        with make_world() as world:
            pretend(world, monkeypatch)
            part = load.load_leading_gpu(setup, group, [ours.recv()], SECRET, "127.0.0.1", GPU, lambda said: None)
            run(make_engine(part.runner), *found)
        assert part.runner.num_recorded > 0
    finally:
        group.close()
        process.join(PATIENCE_S)
        process.kill()
    assert [it.output_token_ids for it in found] == [it.output_token_ids for it in right]
