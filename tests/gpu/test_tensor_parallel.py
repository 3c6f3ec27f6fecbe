"""Ranks on real GPUs, one each: the same tokens as one rank, and one's death ends the collective of the others."""

import multiprocessing
import os
import queue
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

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


def in_a_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """What it returns. Rank 0 ends as abruptly as an instance does: taking NCCL apart in order waits for its peers."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(theirs, work, arguments))  # no daemon: it has children
    process.start()
    try:
        assert ours.poll(500), "rank 0 says nothing"
        found, problem = ours.recv()
        assert not problem, problem
        return found
    finally:
        process.kill()
        process.join()


def _work(pipe: Connection, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        pipe.send((work(*arguments), ""))
    except BaseException:
        pipe.send((None, traceback.format_exc()))
    finally:
        os._exit(0)


def make_load() -> list:
    return [make_sequence(7 * n + 1, request_id=str(n), arrival_time_s=float(n), max_tokens=30) for n in range(9)]


def outputs(runner, sequences: list) -> list[list[int]]:
    run(make_engine(runner, max_num_batched_tokens=100), *sequences)
    return [sequence.output_token_ids for sequence in sequences]


@pytest.mark.parametrize("num_ranks", SIZES)
def test_ranks_generate_what_one_generates(num_ranks):
    """Chunks kernel by kernel, decode steps by recorded graphs, on every rank."""
    right = outputs(make_runner(MODEL, num_blocks=256), make_load())
    assert in_a_process(generate_twice, checkpoint(MODEL), num_ranks) == [right, right]


def generate_twice(path: Path, num_ranks: int) -> list[list[list[int]]]:
    with leading_runner(path, num_ranks) as (runner, _):
        return [outputs(runner, make_load()) for _ in "ab"]


@needs(2)
def test_all_ranks_have_as_many_blocks_as_the_one_with_the_least_room():
    total = torch.cuda.mem_get_info(DEVICE)[1]
    few, many = (in_a_process(count_blocks, checkpoint(MODEL), held) for held in (total // 50, 0))
    assert few < many


def count_blocks(path: Path, num_held_bytes: int) -> int:
    """With so much of rank 0's GPU in use."""
    held = torch.empty(num_held_bytes, dtype=torch.uint8, device=DEVICE)
    with leading_runner(path, 2) as (runner, _):
        assert len(held) == num_held_bytes
        return runner.kv_cache.num_blocks


@needs(2)
@pytest.mark.parametrize("number", [pytest.param(2, id="in a chunk"), pytest.param(20, id="in a recorded step")])
def test_a_rank_that_dies_in_a_step_ends_the_collective_in_which_rank_0_waits(number):
    problem, seconds = in_a_process(lose_a_rank, checkpoint(MODEL), number)
    assert "rank 1 is lost" in problem
    print(f"the step ended {seconds:.3f} s after rank 0 heard that the other is gone")


def lose_a_rank(path: Path, number: int) -> tuple[str, float]:
    heard_s: queue.SimpleQueue[float] = queue.SimpleQueue()
    arm = f"ranks.1.step=kill@{number}"
    with leading_runner(path, 2, arm=arm, on_lost=lambda _: heard_s.put(time.perf_counter())) as (runner, _):
        with pytest.raises(RankLost) as raised:
            outputs(runner, make_load())
        return str(raised.value), time.perf_counter() - heard_s.get(timeout=60)
