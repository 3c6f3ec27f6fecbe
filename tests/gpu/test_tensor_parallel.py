"""Ranks on real GPUs, one each: the same tokens as one rank, and one's death ends the collective of the others."""

import queue
import time
from collections.abc import Iterator

import pytest
import torch

from cluster.model.parallel import TorchCommunicator, join_nccl, make_store
from cluster.ranks.errors import RankLost
from tests.unit.model.factories import checkpoint, make_engine, make_runner, make_sequence, run

from .rank_processes import leading_runner

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

if not torch.cuda.is_available():
    pytest.skip("GPU tests need a GPU, and a torch that is built for it", allow_module_level=True)

DEVICE = torch.device("cuda", 0)
MODEL = "llama-mha-biased"  # four KV heads


def needs(num_gpus: int) -> pytest.MarkDecorator:
    found = torch.cuda.device_count()
    return pytest.mark.skipif(found < num_gpus, reason=f"{num_gpus} ranks need a GPU each, and {found} are here")


SIZES = [pytest.param(size, marks=needs(size)) for size in (2, 4)]


@pytest.fixture
def communicator() -> Iterator[TorchCommunicator]:
    """Of one rank: what a single GPU can show of the calls and of how they are recorded."""
    torch.cuda.set_device(DEVICE)
    store = make_store("127.0.0.1", 0, 1, is_host=True, timeout_s=60.0)
    communicator = join_nccl(store, 0, 1, device=DEVICE, timeout_s=60.0)
    yield communicator
    communicator.abort()


def test_collectives_are_put_on_the_current_stream(communicator):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        numbers = torch.arange(6.0, device=DEVICE).view(2, 3)
        assert communicator.all_reduce(numbers) is numbers
        gathered = communicator.gather_columns(numbers)
    stream.synchronize()
    assert torch.equal(gathered.cpu(), torch.arange(6.0).view(2, 3))


def test_collectives_are_recorded(communicator):
    source = torch.ones(2, 3, device=DEVICE)
    communicator.gather_columns(communicator.all_reduce(source.clone()))
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = communicator.gather_columns(communicator.all_reduce(source * 2))
    for value in (3.0, 5.0):
        source.fill_(value)
        graph.replay()
        assert torch.equal(found.cpu(), torch.full((2, 3), 2 * value))


def make_load() -> list:
    return [make_sequence(7 * n + 1, request_id=str(n), arrival_time_s=float(n), max_tokens=30) for n in range(9)]


def outputs(runner, sequences: list) -> list[list[int]]:
    run(make_engine(runner, max_num_batched_tokens=100), *sequences)
    return [sequence.output_token_ids for sequence in sequences]


@pytest.mark.parametrize("num_ranks", SIZES)
def test_ranks_generate_what_one_generates(num_ranks):
    """Chunks kernel by kernel, decode steps by recorded graphs, on every rank."""
    right = outputs(make_runner(MODEL, num_blocks=256), make_load())
    with leading_runner(checkpoint(MODEL), num_ranks) as (runner, _):
        assert outputs(runner, make_load()) == right
        assert outputs(runner, make_load()) == right


@needs(2)
def test_all_ranks_have_as_many_blocks_as_the_one_with_the_least_room():
    total = torch.cuda.mem_get_info(DEVICE)[1]
    held = torch.empty(total // 50, dtype=torch.uint8, device=DEVICE)
    with leading_runner(checkpoint(MODEL), 2) as (runner, _):
        few = runner.kv_cache.num_blocks
    del held
    torch.cuda.empty_cache()
    with leading_runner(checkpoint(MODEL), 2) as (runner, _):
        assert runner.kv_cache.num_blocks > few


@needs(2)
@pytest.mark.parametrize("step", ["in a chunk", "in a recorded step"])
def test_a_rank_that_dies_in_a_step_ends_the_collective_in_which_rank_0_waits(step):
    lost: queue.SimpleQueue[tuple[RankLost, float]] = queue.SimpleQueue()
    number = 2 if step == "in a chunk" else 20
    with leading_runner(
        checkpoint(MODEL),
        2,
        arm=f"ranks.1.step=kill@{number}",
        on_lost=lambda error: lost.put((error, time.perf_counter())),
    ) as (runner, processes):
        with pytest.raises(RankLost, match="rank 1 is lost"):
            outputs(runner, make_load())
        raised_s = time.perf_counter()
        error, told_s = lost.get(timeout=60)
        print(f"the step ended {raised_s - told_s:.3f} s after rank 0 was told that rank {error.rank} is gone")
        processes[1].join(60)
