"""What an instance's engine is made of."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import pytest
import torch

import cluster.model.device
import cluster.model.runner
import cluster.model.saturation
from cluster.engine.scheduler_output import SampledToken, SchedulerOutput
from cluster.instance import loading
from cluster.instance.config import EngineConfig, InstanceConfig
from cluster.instance.gpu_loading import LARGEST_STEP_TOKENS, GpuMemory
from cluster.instance.loading import LoadedEngine, load_engine
from cluster.model.runner import ModelRunner
from cluster.role import InstanceRole
from deploy.roles import ROLE_POLICIES
from tests.unit.instance.served import RECORD_BYTES, SECRET, served
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


async def test_an_instance_of_several_ranks_tells_of_blocks_what_a_link_moves() -> None:
    """Samples are of rank 0's links. More bytes than those would be forecast to take longer than they do."""
    async with served(engine=EngineConfig(tensor_parallel_size=4)) as instance:
        assert instance.info.block_bytes == RECORD_BYTES


@pytest.fixture
def load_as_on_gpu(monkeypatch) -> Callable[..., LoadedEngine]:
    """Loads as for a GPU, but for the device itself."""
    with ExitStack() as stack:
        monkeypatch.setattr(cluster.model.device, "find_device", lambda name: torch.device("cuda"))
        monkeypatch.setattr(loading, "check_transport", lambda links, on_device: None)

        def load_on_cpu(config: InstanceConfig, device: torch.device, progress: Callable[[str], None]) -> Any:
            loaded = loading._load_alone(config, progress)
            stack.enter_context(closing(loaded.memory))
            return replace(loaded, memory=GpuMemory())

        def load(**options: Any) -> LoadedEngine:
            engine = EngineConfig(block_size=BLOCK_SIZE, kv_cache_memory_bytes=4 << 20, device="cuda", **options)
            config = InstanceConfig(
                name="me", role=InstanceRole.MIXED, model_path=str(checkpoint("llama")), secret=SECRET, engine=engine
            )
            return load_engine(config, ROLE_POLICIES[config.role], lambda progress: None)

        monkeypatch.setattr(loading, "_load_gpu", load_on_cpu)
        yield load


def test_saturation_on_a_gpu_is_measured_with_no_larger_step_than_memory_was(load_as_on_gpu, monkeypatch) -> None:
    run, lengths = ModelRunner.run, []

    def run_and_note(runner: ModelRunner, output: SchedulerOutput) -> list[SampledToken]:
        lengths.append(sum(entry.num_tokens for entry in output.scheduled))
        return run(runner, output)

    monkeypatch.setattr(ModelRunner, "run", run_and_note)
    loaded = load_as_on_gpu(max_num_batched_tokens=64)
    assert max(lengths) == 64
    assert loaded.engine.scheduler.config.max_num_batched_tokens == 64


@pytest.mark.parametrize("role", InstanceRole)
def test_no_step_on_a_gpu_is_larger_than_memory_was_measured_with(load_as_on_gpu, monkeypatch, role) -> None:
    monkeypatch.setattr(cluster.model.saturation, "measure_saturation", lambda runner, max_tokens: max_tokens)
    loaded = load_as_on_gpu(max_num_seqs=64)
    assert loaded.saturation_tokens == LARGEST_STEP_TOKENS
    assert loaded.engine.scheduler.config.max_num_batched_tokens == LARGEST_STEP_TOKENS
    assert loaded.token_budget(EngineConfig(), ROLE_POLICIES[role]) <= LARGEST_STEP_TOKENS
