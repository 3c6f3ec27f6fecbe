from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from cluster.instance import instance
from cluster.instance.config import EngineConfig, HandoverConfig, InstanceConfig, WeightsPeer
from cluster.instance.gpu_loading import load_on_gpu
from cluster.instance.loading import load_engine
from cluster.model.load import load_model
from cluster.pb.ranks_pb2 import RankHello
from cluster.ranks import load, weights
from cluster.ranks.group import RankGroup
from cluster.ranks.setup import RankSetup
from cluster.role import InstanceRole
from cluster.secret import SECRET_BYTES, ClusterSecret
from deploy.roles import ROLE_POLICIES
from tests.unit.instance import served
from tests.unit.instance.served import load_fake
from tests.unit.model.factories import checkpoint

pytestmark = pytest.mark.unit


class Told(Exception):
    pass


def tell(setup: RankSetup, *rest: object) -> NoReturn:
    raise Told(setup)


def load_on_cpu(config: InstanceConfig) -> None:
    load_engine(config, ROLE_POLICIES[config.role], lambda progress: None)


def load_on_gpus(config: InstanceConfig) -> None:
    load_on_gpu(config, torch.device("cuda"), RankGroup(), lambda progress: None)


def test_what_a_rank_is_told_arrives_as_it_was_said():
    peers = tuple(WeightsPeer(name=name, incarnation=1 << 60, link_address="a:1,b:2") for name in ("x", "y"))
    setup = RankSetup(
        world_size=2,
        model_path="/model",
        dtype="bfloat16",
        block_size=8,
        max_model_len=1 << 20,
        rank=1,
        instance="p-0",
        weights_peers=peers,
    )
    assert RankSetup.from_hello(RankHello.FromString(setup.to_hello().SerializeToString())) == setup


@pytest.mark.parametrize("load_instance", [load_on_cpu, load_on_gpus])
@pytest.mark.parametrize("bytes_per_s", [None, 90_000])
def test_other_ranks_serve_weights_within_the_budget_of_the_instance(
    load_instance: Callable[[InstanceConfig], None], bytes_per_s: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "load_leader", tell)
    monkeypatch.setattr(load, "load_leading_gpu", tell)
    config = InstanceConfig(
        name="me",
        role=InstanceRole.MIXED,
        model_path=str(checkpoint("llama")),
        secret=ClusterSecret(bytes(SECRET_BYTES)),
        engine=EngineConfig(tensor_parallel_size=2, kv_cache_memory_bytes=1 << 20),
        handover=HandoverConfig(piece_bytes=1000, bytes_per_s=bytes_per_s),
        rank_addresses=("127.0.0.1:1",),
    )
    with pytest.raises(Told) as told:
        load_instance(config)
    setup = replace(told.value.args[0], rank=1)
    options = {}
    monkeypatch.setattr(weights, "WeightsSender", lambda source, **given: options.update(given))
    weights.rank_weights_sender(setup, load_model(Path(setup.model_path)))
    del options["timeout_s"]
    assert options == {"piece_bytes": 1000, "bytes_per_s": bytes_per_s, "num_ranks": 2}


async def test_so_does_rank_0(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    weights: Any = object()
    monkeypatch.setattr(instance, "WeightsSender", lambda source, **options: given.update(options))
    monkeypatch.setattr(served, "load_fake", lambda *asked: replace(load_fake(*asked), weights=weights))
    options = {"engine": EngineConfig(tensor_parallel_size=4), "handover": HandoverConfig(bytes_per_s=48)}
    async with served.served(**options):
        assert (given["bytes_per_s"], given["num_ranks"]) == (48, 4)
