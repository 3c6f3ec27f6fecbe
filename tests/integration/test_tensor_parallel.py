"""Several ranks compute one model: the same tokens as one rank, and one's death is the end of all."""

import asyncio
import queue
from dataclasses import replace

import pytest
import torch

from cluster.engine.sampling_params import SamplingParams
from cluster.engine.sequence import Sequence
from cluster.instance.config import EngineConfig, InstanceConfig
from cluster.instance.instance import Instance
from cluster.model.kv_cache import KVCache
from cluster.model.load import load_model
from cluster.model.random_checkpoint import make_random_checkpoint
from cluster.model.runner import ModelRunner
from cluster.ranks.errors import RankLost
from cluster.ranks.group import RankGroup
from cluster.ranks.setup import RankSetup
from cluster.role import InstanceRole
from cluster.secret import SECRET_BYTES, ClusterSecret
from deploy.roles import ROLE_POLICIES
from tests.integration.local_cluster import MODEL_PATH, LocalCluster
from tests.integration.rank_processes import (
    BLOCK_SIZE,
    NUM_BLOCKS,
    PATIENCE_S,
    SECRET,
    follower_processes,
    make_engine,
    ranks,
)

pytestmark = pytest.mark.integration

SHAPES = {
    "llama": {"num_attention_heads": 8, "num_key_value_heads": 4, "attention_bias": True, "vocab_size": 323},
    "qwen3": {
        "architecture": "Qwen3ForCausalLM",
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 32,
        "tie_word_embeddings": True,
    },
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_random_checkpoint(tmp_path_factory.mktemp("llama"), **SHAPES["llama"])


def make_sequences(max_tokens=16):
    """Prompts longer than a chunk, than a block, and shorter; one of them is sampled."""
    generator = torch.Generator().manual_seed(1)
    return [
        Sequence(
            request_id=str(length),
            prompt_token_ids=tuple(torch.randint(320, (length,), generator=generator).tolist()),
            sampling_params=SamplingParams(temperature=float(length == 13), seed=5, max_tokens=max_tokens),
            arrival_time_s=0.0,
        )
        for length in (3, 13, 45)
    ]


def generate(engine, sequences):
    for sequence in sequences:
        engine.scheduler.add(sequence)
    while engine.scheduler.has_work:
        engine.step()
    return [sequence.output_token_ids for sequence in sequences]


def alone(checkpoint):
    model = load_model(checkpoint)
    return make_engine(ModelRunner(model, KVCache(NUM_BLOCKS, *model.kv_shape(BLOCK_SIZE), model.dtype)))


@pytest.mark.parametrize("name", SHAPES)
def test_ranks_generate_what_one_generates(name, tmp_path):
    checkpoint = make_random_checkpoint(tmp_path, **SHAPES[name])
    expected = generate(alone(checkpoint), make_sequences())
    for world_size in (2, 4):
        with ranks(checkpoint, world_size) as several:
            assert generate(several.engine, make_sequences()) == expected
            several.group.close()
            assert several.wait_until_ended() == [0] * (world_size - 1)


def test_a_rank_that_dies_in_a_step_ends_the_step_and_the_others(checkpoint):
    lost = queue.SimpleQueue()
    with ranks(checkpoint, 4, arm="ranks.2.step=kill@3", on_lost=lost.put) as several:
        with pytest.raises(RankLost, match="rank 2 is lost"):
            generate(several.engine, make_sequences())
        assert lost.get(timeout=PATIENCE_S).rank == 2
        assert None not in several.wait_until_ended()
        with pytest.raises(RankLost, match="rank 2"):
            several.engine.step()


def test_a_rank_that_fails_says_why(checkpoint):
    with ranks(checkpoint, 2, arm="ranks.1.step=cut") as several:
        with pytest.raises(RankLost, match="rank 1 is lost: ConnectionAbortedError: cut by a failpoint"):
            generate(several.engine, make_sequences())
        assert None not in several.wait_until_ended()


def test_a_rank_that_dies_between_steps_is_noticed(checkpoint):
    lost = queue.SimpleQueue()
    with ranks(checkpoint, 2, on_lost=lost.put) as several:
        several.processes[1].kill()
        assert lost.get(timeout=PATIENCE_S).rank == 1
        with pytest.raises(RankLost):
            generate(several.engine, make_sequences())


async def test_an_instance_of_several_ranks_serves_and_ends_with_any_of_them():
    config = InstanceConfig(
        name="a",
        role=InstanceRole.MIXED,
        model_path=str(MODEL_PATH),
        secret=SECRET,
        engine=EngineConfig(tensor_parallel_size=2, num_threads=1, kv_cache_memory_bytes=8 << 20),
    )
    with follower_processes(2) as (processes, addresses):
        instance = Instance(replace(config, rank_addresses=tuple(addresses)), ROLE_POLICIES)
        info = await instance.start()
        assert info.num_blocks == (8 << 20) // (2 * info.block_bytes)
        processes[1].kill()
        await asyncio.wait_for(instance.failed.wait(), PATIENCE_S)
        assert instance.progress == "failed: rank 1 is lost: its process is gone"
        await instance.stop()


async def test_a_cluster_of_several_ranks_says_what_one_rank_says():
    said = []
    for num_ranks in (1, 2):
        engine = {"tensor_parallel_size": num_ranks}
        async with LocalCluster(num_prefill=0, num_decode=0, num_mixed=1, engine=engine) as cluster:
            completion = await cluster.client.complete("Once upon a time", max_tokens=20, temperature=0)
            said.append(completion.token_ids)
            await cluster.until_empty()
    assert said[0] == said[1]


def test_a_rank_cannot_be_had_without_the_secret(checkpoint):
    setup = RankSetup(world_size=2, model_path=str(checkpoint), dtype="float32", block_size=8, num_blocks=8)
    with (
        follower_processes(2) as (_, addresses),
        pytest.raises(RankLost, match="does not know the cluster's secret"),
    ):
        RankGroup().call(addresses, setup, ClusterSecret(b"x" * SECRET_BYTES))
