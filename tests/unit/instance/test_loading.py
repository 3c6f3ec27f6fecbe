"""What an instance's engine is made of."""

import pytest
import torch

import cluster.model.runner
from cluster.instance.config import EngineConfig, InstanceConfig
from cluster.instance.loading import load_engine
from cluster.model.runner import ModelRunner
from cluster.role import InstanceRole
from deploy.roles import ROLE_POLICIES
from tests.unit.instance.served import SECRET
from tests.unit.model.factories import BLOCK_SIZE, checkpoint
from tests.unit.model.stand_in import StandInRunner

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("runner", [ModelRunner, StandInRunner])
def test_only_a_runner_that_computes_beside_the_host_is_a_launcher(runner, monkeypatch) -> None:
    monkeypatch.setattr(cluster.model.runner, "ModelRunner", runner)
    num_threads = torch.get_num_threads()
    options = EngineConfig(block_size=BLOCK_SIZE, kv_cache_memory_bytes=1 << 18, num_threads=1)
    config = InstanceConfig(
        name="me", role=InstanceRole.MIXED, model_path=str(checkpoint("llama")), secret=SECRET, engine=options
    )
    loaded = load_engine(config, ROLE_POLICIES[config.role], lambda progress: None)
    try:
        assert isinstance(loaded.engine.runner, runner)
        assert loaded.engine.launcher is (loaded.engine.runner if runner is StandInRunner else None)
    finally:
        loaded.memory.close()
        torch.set_num_threads(num_threads)
