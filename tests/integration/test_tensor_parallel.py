"""Several ranks compute one model: the same tokens as one rank, and one's death is the end of all."""

import asyncio
import itertools
import os
import queue
import re
import socket
from dataclasses import replace

import pytest
import torch

from cluster.engine.sampling_params import SamplingParams
from cluster.engine.sequence import Sequence
from cluster.instance.config import EngineConfig, InstanceConfig, WeightsPeer
from cluster.instance.instance import Instance
from cluster.instance.loading import load_engine
from cluster.links.config import LinkConfig
from cluster.messages import BlockTransfer, Epoch, Holder
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
from tests.unit.links.factories import Events

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


NUM_TOKENS = 300
# Of the instances among which a request moves; `make test-ranks` takes all of them.
ALL_ROUTES = [(1, 2), (1, 2, 4), (2, 2), (4, 4)]


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


def greedy(prompt):
    params = SamplingParams(temperature=0.0, max_tokens=NUM_TOKENS)
    return Sequence(request_id="r", prompt_token_ids=prompt, sampling_params=params, arrival_time_s=0.0)


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


def test_a_rank_whose_links_fail_says_why(checkpoint):
    lost = queue.SimpleQueue()
    with ranks(checkpoint, 2, on_lost=lost.put) as several:
        (links,) = several.group.open_links(Holder("a", 1), LinkConfig(), Events())
        links.seal((NUM_BLOCKS + 1,))
        assert re.match(r"rank 1 is lost: \w+Error: ", str(lost.get(timeout=PATIENCE_S)))
        links.close()


def test_links_of_another_rank_tell_what_they_sent_and_whom_they_sent_away(checkpoint):
    a, b, epoch = Holder("a", 1), Holder("b", 1), Epoch(1, 1)
    sent, taken, block_ids = Events(), Events(), (3, 4, 5)
    with ranks(checkpoint, 2) as source, ranks(checkpoint, 2) as target:
        (sender,) = source.group.open_links(a, LinkConfig(), sent)
        (receiver,) = target.group.open_links(b, LinkConfig(), taken)
        sender.seal(block_ids)
        receiver.open(1, a, epoch, block_ids, 0)
        transfer = BlockTransfer(
            request_id="r", epoch=epoch, reservation=1, first_block=0, block_ids=block_ids, checksums=()
        )
        sender.send(f"127.0.0.1:1,{receiver.link_address}", b, transfer)
        assert sent.next("on_sent") == (transfer,)
        assert taken.next("on_far_arrived") == (1, 0, 3)
        (link,) = sender.status()
        assert (link.source, link.target, link.source_rank, link.target_rank) == ("a", "b", 1, 1)
        assert link.num_transfers == 1
        assert link.num_bytes == len(block_ids) * source.engine.runner.kv_cache.record_bytes
        for address in (receiver.link_address, *target.addresses):
            host, port = address.rsplit(":", 1)
            with socket.create_connection((host, int(port))) as stranger:
                stranger.sendall(b"GET / HTTP/1.1")
                stranger.shutdown(socket.SHUT_WR)
                taken.next("on_unauthenticated")
        sender.close()
        receiver.close()


def test_a_rank_that_dies_between_steps_is_noticed(checkpoint):
    lost = queue.SimpleQueue()
    with ranks(checkpoint, 2, on_lost=lost.put) as several:
        several.processes[1].kill()
        assert lost.get(timeout=PATIENCE_S).rank == 1
        with pytest.raises(RankLost):
            generate(several.engine, make_sequences())


def make_config(num_ranks):
    return InstanceConfig(
        name="a",
        role=InstanceRole.MIXED,
        model_path=str(MODEL_PATH),
        secret=SECRET,
        engine=EngineConfig(tensor_parallel_size=num_ranks, num_threads=1, kv_cache_memory_bytes=8 << 20),
    )


async def test_an_instance_of_several_ranks_serves_and_ends_with_any_of_them():
    config = make_config(2)
    with follower_processes(2) as (processes, addresses):
        instance = Instance(replace(config, rank_addresses=tuple(addresses)), ROLE_POLICIES)
        info = await instance.start()
        assert info.num_blocks == (8 << 20) // (2 * info.block_bytes)
        processes[1].kill()
        await asyncio.wait_for(instance.failed.wait(), PATIENCE_S)
        assert instance.progress == "failed: rank 1 is lost: its process is gone"
        await instance.stop()


def test_rank_0_tells_from_where_its_weights_come():
    config, said = make_config(2), []
    peer = WeightsPeer(name="b", incarnation=1, link_address="127.0.0.1:1,127.0.0.1:1")
    with follower_processes(2) as (_, addresses):
        config = replace(config, rank_addresses=tuple(addresses), weights_peers=(peer,))
        loaded = load_engine(config, ROLE_POLICIES[config.role], said.append)
        loaded.ranks.close()
    weights = ["loading weights", "loading weights from b", "loading weights from disk"]
    assert said == [*weights, "loading kernels", "measuring saturation"]


class Running:
    """A request whose tokens are taken as they come."""

    def __init__(self, cluster, prompt):
        self._cluster, self._prompt = cluster, prompt
        self.token_ids = []
        self._news = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    async def _run(self):
        options = {"temperature": 0, "max_tokens": NUM_TOKENS, "ignore_eos": True}
        async for delta in self._cluster.client.generate(self._prompt, request_id="r", **options):
            self.token_ids += delta.token_ids
            self._news.set()

    async def go_on(self):
        """Until there are some more tokens."""
        num_tokens = len(self.token_ids) + 3
        async with asyncio.timeout(PATIENCE_S):
            while len(self.token_ids) < num_tokens:
                self._news.clear()
                await self._news.wait()

    async def holder(self):
        return (await self._cluster.client.trace("r")).events[-1].instance

    async def walk(self):
        """From every instance to every other."""
        home = await self.holder()
        others = [name for name in self._cluster.infos if name != home]
        stops = [stop for other in others for stop in (other, home)]
        stops += [stop for one, other in itertools.pairwise(others) for stop in (one, other, one, home)]
        for stop in stops:
            await self.go_on()
            await self._cluster.client.migrate("r", stop)
        return len(stops)


@pytest.mark.parametrize("num_ranks", ALL_ROUTES if "BATON_ALL_RANKS" in os.environ else ALL_ROUTES[:1])
async def test_a_request_moves_between_instances_of_any_number_of_ranks_and_survives_them(num_ranks, checkpoint):
    prompt = make_sequences()[-1].prompt_token_ids
    (expected,) = generate(alone(checkpoint), [greedy(prompt)])
    names = {f"mixed-{index}": size for index, size in enumerate(num_ranks)}
    instances = {"num_prefill": 0, "num_decode": 0, "num_mixed": len(names), "num_ranks": names}
    async with LocalCluster(model_path=checkpoint, **instances) as cluster:
        running = Running(cluster, prompt)
        await running.go_on()
        num_moves = await running.walk()
        events = (await cluster.client.trace("r")).events
        assert [event.event for event in events if event.reason == "migrate"] == ["granted", "passed"] * num_moves
        links = [(link.source, link.target) for link in (await cluster.client.status()).links]
        assert len(links) == len(set(links)) > 0
        await running.go_on()
        assert not running.task.done()
        cluster.kill(await running.holder())
        await running.task
        assert running.token_ids == expected


def test_a_rank_cannot_be_had_without_the_secret(checkpoint):
    setup = RankSetup(world_size=2, model_path=str(checkpoint), dtype="float32", block_size=8, num_blocks=8)
    with (
        follower_processes(2) as (_, addresses),
        pytest.raises(RankLost, match="does not know the cluster's secret"),
    ):
        RankGroup().call(addresses, setup, ClusterSecret(b"x" * SECRET_BYTES))
