"""Instances of several ranks on GPUs, as far as they go without one; what is real of it, gpu_threads.py says."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest
import torch

from cluster import failpoints
from cluster.instance.config import EngineConfig, InstanceConfig
from cluster.instance.gpu_loading import load_on_gpu
from cluster.instance.instance import Instance
from cluster.links import nccl_channel, nccl_messages
from cluster.model.random_checkpoint import make_random_checkpoint
from cluster.model.runner import ModelRunner
from cluster.ranks import load
from cluster.ranks.errors import RankLost
from cluster.ranks.group import RankGroup
from cluster.role import InstanceRole
from deploy.roles import ROLE_POLICIES
from tests.integration.gpu_threads import GPU, ROOM, FollowerThreads, GpuCluster, install
from tests.integration.rank_processes import PATIENCE_S, SECRET, make_engine
from tests.integration.test_tensor_parallel import SHAPES, Running, alone, generate, greedy, make_sequences
from tests.unit.links.fake_nccl import World, make_world

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_random_checkpoint(tmp_path_factory.mktemp("llama"), **SHAPES["llama"])


@pytest.fixture
def world(monkeypatch) -> Iterator[World]:
    for module in (nccl_channel, nccl_messages):
        monkeypatch.setattr(module, "STAGING_BYTES", 64 << 10)
    with make_world() as world:
        yield world


@pytest.fixture
def communicators(world, monkeypatch):
    return install(world, monkeypatch)


def make_config(checkpoint, num_ranks: int, **options) -> InstanceConfig:
    return InstanceConfig(
        name="a",
        role=InstanceRole.MIXED,
        model_path=str(checkpoint),
        secret=SECRET,
        engine=EngineConfig(tensor_parallel_size=num_ranks, device="cuda", max_num_batched_tokens=64, **options),
    )


async def test_all_ranks_have_as_many_blocks_as_the_one_with_the_least_room(checkpoint, communicators):
    config = make_config(checkpoint, 4)
    with closing(FollowerThreads(config)) as followers:
        instance = Instance(replace(config, rank_addresses=followers.addresses), ROLE_POLICIES)
        info = await instance.start()
        assert info.num_blocks == ROOM - 3
        assert len(info.link_address.split(",")) == 4
        await instance.stop()
        assert await asyncio.to_thread(followers.join, PATIENCE_S)
        assert followers.problems == []


def test_ranks_generate_what_one_generates(checkpoint, communicators):
    expected = generate(alone(checkpoint), make_sequences())
    with leading(checkpoint, 4) as (runner, _):
        assert generate(make_engine(runner), make_sequences()) == expected


def test_every_rank_knows_how_long_a_sequence_may_get(checkpoint, communicators, monkeypatch):
    make, known = ModelRunner.__init__, []

    def make_and_note(runner, model, kv_cache, gpu) -> None:
        known.append(gpu.max_model_len)
        make(runner, model, kv_cache, gpu)

    monkeypatch.setattr(ModelRunner, "__init__", make_and_note)
    with leading(checkpoint, 2, max_model_len=40):
        assert known == [40, 40]


def test_a_rank_that_fails_in_a_step_ends_the_collective_in_which_the_others_wait(checkpoint, communicators):
    """Nothing ends it by itself here, as on a GPU: it is aborted, and what it has computed is not taken."""
    with leading(checkpoint, 2) as (runner, followers):
        engine = make_engine(runner)
        with (
            failpoints.armed("ranks.1.step", failpoints.at(3, failpoints.cut)),
            pytest.raises(RankLost, match="rank 1 is lost: ConnectionAbortedError: cut by a failpoint"),
        ):
            generate(engine, make_sequences())
        assert [it.is_aborted for it in communicators if it.rank == 0] == [True]
        assert followers.join(PATIENCE_S)
        with pytest.raises(RankLost):
            engine.step()


def test_a_rank_that_fails_before_all_have_joined_ends_the_wait_for_it(checkpoint, communicators, monkeypatch):
    join, is_over = load.join_nccl, threading.Event()

    def join_or_not(store, rank, *sizes, **options):
        if rank == 1:
            raise ValueError("no NCCL here")
        assert is_over.wait(PATIENCE_S)
        return join(store, rank, *sizes, **options)

    monkeypatch.setattr(load, "join_nccl", join_or_not)
    with pytest.raises(RankLost, match="rank 1 is lost: ValueError: no NCCL here"), leading(checkpoint, 2):
        pass
    is_over.set()


async def test_a_request_moves_between_gpus_shared_in_different_ways(checkpoint, communicators):
    prompt = make_sequences()[-1].prompt_token_ids
    (expected,) = generate(alone(checkpoint), [greedy(prompt)])
    engine = {"device": "cuda", "max_num_seqs": 8}
    names = {"mixed-0": 1, "mixed-1": 2}
    roles = {"num_prefill": 0, "num_decode": 0, "num_mixed": 2}
    patience = {"router": {"suspect_after_s": PATIENCE_S}, "front_timeout_s": PATIENCE_S}  # all is one process
    async with GpuCluster(model_path=checkpoint, num_ranks=names, engine=engine, **roles, **patience) as cluster:
        running = Running(cluster, prompt)
        await running.go_on()
        num_moves = await running.walk()
        await running.task
        assert running.token_ids == expected
        events = (await cluster.client.trace("r")).events
        assert [event.event for event in events if event.reason == "migrate"] == ["granted", "passed"] * num_moves
        await cluster.until(lambda status: all(link.transport == "nccl" for link in status.links))


@contextmanager
def leading(checkpoint, num_ranks, **options):
    """Rank 0's runner, and the other ranks."""
    config = make_config(checkpoint, num_ranks, **options)
    followers, group = FollowerThreads(config), RankGroup()
    try:
        part = load_on_gpu(replace(config, rank_addresses=followers.addresses), GPU, group, lambda progress: None)
        yield part.runner, followers
    finally:
        group.close()
        assert followers.join(PATIENCE_S)
        followers.close()
