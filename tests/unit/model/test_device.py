from dataclasses import replace

import pytest
import torch

from cluster.engine.scheduler_output import SchedulerOutput
from cluster.model.device import DeviceUnavailable, find_device
from cluster.model.errors import OutOfDeviceMemory
from cluster.model.gpu_warm_up import largest_step, measure_num_blocks
from cluster.model.kv_cache import KVCache
from cluster.model.kv_sizing import GIB, DeviceMemory, check_weights_fit, num_kv_blocks
from cluster.model.random_weights import llama_3_8b, random_model
from cluster.model.runner import ModelRunner
from tests.unit.model.factories import BLOCK_SIZE, make_engine, make_runner, make_sequence, run

pytestmark = pytest.mark.unit


def test_a_cpu_is_always_there_and_is_what_is_taken_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("cpu") == find_device("auto") == torch.device("cpu")


@pytest.mark.parametrize(("name", "problem"), [("gpu", "is not known"), ("meta", "is not supported")])
def test_a_device_that_nobody_knows_is_refused(name, problem):
    with pytest.raises(DeviceUnavailable, match=problem):
        find_device(name)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(DeviceUnavailable, match="built without CUDA"):
        find_device("cuda")
    monkeypatch.setattr(torch.version, "cuda", "12.9")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(DeviceUnavailable, match="no GPU 2: this process sees 2"):
        find_device("cuda:2")


def test_blocks_take_what_weights_steps_and_others_leave():
    memory = DeviceMemory(total=80 * GIB, others=2 * GIB, peak_tensors=20 * GIB)
    assert num_kv_blocks(memory, 2 << 20, 0.9) == 50 * 512


def test_a_gpu_that_is_too_small_is_refused_and_told_by_how_much():
    memory = DeviceMemory(total=16 * GIB, others=GIB, peak_tensors=16 * GIB)
    with pytest.raises(DeviceUnavailable, match=r"2\.00 GiB are missing"):
        num_kv_blocks(memory, GIB // 2, 0.96875)
    check_weights_fit(15 * GIB, 15 * GIB)
    with pytest.raises(DeviceUnavailable, match=r"1\.00 GiB are missing"):
        check_weights_fit(16 * GIB, 15 * GIB)


@pytest.mark.parametrize("error", [OutOfDeviceMemory(("a",)), torch.OutOfMemoryError("CUDA out of memory")])
def test_a_gpu_that_does_not_hold_the_largest_step_is_refused(error, monkeypatch):
    def give_up(runner: ModelRunner, step: SchedulerOutput) -> None:
        raise error

    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(ModelRunner, "run", give_up)
    with pytest.raises(DeviceUnavailable, match="not a step of 50 tokens"):
        measure_num_blocks(make_runner().model, BLOCK_SIZE, max_num_batched_tokens=50, max_num_seqs=7, utilization=0.9)


def test_a_random_model_is_made_without_files_and_computes_finite_logits():
    config = replace(
        llama_3_8b(), num_layers=2, hidden_size=32, intermediate_size=48, vocab_size=50, num_heads=4, num_kv_heads=2
    )
    assert llama_3_8b().num_parameters == 8_030_261_248
    model = random_model(replace(config, head_dim=8), torch.bfloat16, torch.device("cpu"))
    runner = ModelRunner(model, KVCache(4, *model.kv_shape(BLOCK_SIZE), torch.bfloat16))
    sequence = make_sequence((1, 2, 3), max_tokens=5)
    run(make_engine(runner), sequence)
    assert len(sequence.output_token_ids) == 5


def test_the_largest_step_has_all_the_tokens_and_sequences_and_runs_in_one_block():
    model = make_runner().model
    runner = ModelRunner(model, KVCache(1, *model.kv_shape(BLOCK_SIZE), torch.float32))
    step = largest_step(BLOCK_SIZE, 50, 7)
    assert sum(entry.num_tokens for entry in step.scheduled) == 50
    assert len(runner.run(step)) == 7
    assert len(largest_step(BLOCK_SIZE, 3, 7).scheduled) == 3
