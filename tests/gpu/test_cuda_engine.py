"""The engine on a real GPU: the same tokens as on a CPU, whatever way they are computed there."""

import gc
import random
import warnings
from collections.abc import Iterator
from contextlib import suppress

import pytest
import torch

from cluster.engine.engine import Engine
from cluster.engine.scheduler_output import ScheduledSequence, SchedulerOutput
from cluster.model.errors import OutOfDeviceMemory
from cluster.model.gpu_options import GpuOptions
from cluster.model.gpu_warm_up import largest_step, measure_num_blocks
from cluster.model.kv_cache import KVCache
from cluster.model.load import load_model
from cluster.model.runner import ModelRunner
from tests.unit.model.factories import BLOCK_SIZE, checkpoint, make_engine, make_runner, make_sequence, run

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

if not torch.cuda.is_available():
    pytest.skip("GPU tests need a GPU, and a torch that is built for it", allow_module_level=True)

from cluster.model.gpu_attention import make_gpu_attention  # noqa: E402  # need Triton
from cluster.model.triton_attention import TritonAttention  # noqa: E402
from tests.unit.model.gpu_kernels import (  # noqa: E402
    TOLERANCES,
    fill_prefixes,
    make_cache,
    make_heads,
    make_shard,
    make_spans,
    on_device,
    reference,
)
from tests.unit.model.stand_in import run_all  # noqa: E402

DEVICE = torch.device("cuda", 0)
MAX_SEQS = 20


@pytest.fixture(autouse=True)
def memory_is_returned() -> Iterator[None]:
    yield
    gc.collect()  # a runner and its graphs know each other
    torch.cuda.synchronize()
    torch.cuda.empty_cache()


def make_gpu_runner(
    name: str = "llama", *, dtype: torch.dtype = torch.float32, num_blocks: int = 256, **options: bool
) -> ModelRunner:
    model = load_model(checkpoint(name), dtype, device=DEVICE)
    kv_cache = KVCache(num_blocks, *model.kv_shape(BLOCK_SIZE), dtype, device=DEVICE)
    return ModelRunner(model, kv_cache, GpuOptions(max_num_seqs=MAX_SEQS, **options))


# Attention


def draw_shape(seed: int) -> dict:
    draw = random.Random(seed)
    group, num_kv_heads = draw.choice([1, 2, 3, 4, 7, 8, 16]), draw.choice([1, 2, 8])
    chunks = [(draw.randrange(3000), draw.choice([1, 1, 1, 2, 17, 300])) for _ in range(draw.randint(1, 12))]
    return {
        "shard": make_shard(group * num_kv_heads, num_kv_heads),
        "block_size": draw.choice([1, 3, 8, 16, 16, 32, 48, 256]),
        "head_dim": draw.choice([64, 128, 128, 80, 256]),
        "chunks": chunks,
        "window": draw.choice([None, None, None, 1, 100, 1024]),
    }


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("own_kernels", [True, False])
def test_any_shape_is_attended_to_as_it_is_written(seed, dtype, own_kernels):
    shape = draw_shape(seed)
    shard, head_dim, window = shape["shard"], shape["head_dim"], shape["window"]
    num_blocks = 2 + sum(-(-sum(chunk) // shape["block_size"]) for chunk in shape["chunks"])
    cache = make_cache(shard, block_size=shape["block_size"], head_dim=head_dim, dtype=dtype, num_blocks=num_blocks)
    spans = make_spans(cache, shape["chunks"], seed)
    fill_prefixes(cache, spans, seed)
    heads = make_heads(spans, shard, head_dim, dtype, seed)
    make = TritonAttention if own_kernels else make_gpu_attention
    attention = make(on_device(cache), shard, window=window)
    attention.plan(spans)
    found = attention.attend(1, heads.to(DEVICE)).cpu().double()
    right = reference(cache, shard, spans, heads, 1, window)
    torch.testing.assert_close(found, right, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])


# Tokens


def make_load(count: int = 12, **params: float) -> list:
    draw = random.Random(count)
    return [
        make_sequence(draw.randint(1, 90), request_id=str(n), arrival_time_s=float(n), max_tokens=draw.randint(1, 40))
        if not params
        else make_sequence(draw.randint(1, 90), request_id=str(n), seed=n, max_tokens=24, **params)
        for n in range(count)
    ]


def outputs(runner: ModelRunner, sequences: list, **engine: int) -> list[list[int]]:
    run(make_engine(runner, **engine), *sequences)
    return [sequence.output_token_ids for sequence in sequences]


@pytest.mark.parametrize("name", ["llama", "llama-mha-biased", "llama-mqa-sharded", "qwen3", "qwen3-tied-biased"])
@pytest.mark.parametrize("graphs", [True, False])
def test_greedy_tokens_are_those_of_the_cpu(name, graphs):
    right = outputs(make_runner(name, num_blocks=256), make_load())
    assert outputs(make_gpu_runner(name, graphs=graphs), make_load()) == right
    assert outputs(make_gpu_runner(name, graphs=graphs), make_load(), max_num_batched_tokens=24) == right


@pytest.mark.parametrize("params", [{"temperature": 1.0}, {"temperature": 0.8, "top_p": 0.9}, {"top_k": 20}])
def test_drawn_tokens_are_those_of_the_cpu(params):
    params = {"temperature": 1.0, **params}
    right = outputs(make_runner(num_blocks=256), make_load(**params))
    assert outputs(make_gpu_runner(), make_load(**params)) == right


def test_steps_that_are_laid_out_before_their_tokens_are_there_change_none():
    def waves() -> list[list]:
        load = make_load(temperature=1.0)
        return [load[:4], load[4:9], load[9:]]

    right = run_all(make_engine(make_runner(num_blocks=256)), *waves())
    for num_blocks in (256, 30):
        runner = make_gpu_runner(num_blocks=num_blocks)
        assert run_all(make_engine(runner), *waves()) == right
        assert 0 < runner.host_gap.num_foreseen < runner.host_gap.num_steps
        assert 0.0 < runner.host_gap.share < 1.0


def test_a_step_that_was_launched_is_waited_for_when_its_tokens_are_asked_for():
    runner = make_gpu_runner()
    engine = start_decoding(runner, 3)
    output = engine.scheduler.schedule()
    runner.launch(output)
    assert len(engine.scheduler.update(output, runner.collect()).tokens) == 3
    assert torch.cuda.current_stream(DEVICE).query()


def test_preempted_requests_end_with_the_same_tokens():
    right = outputs(make_gpu_runner(), make_load())
    assert outputs(make_gpu_runner(num_blocks=30), make_load()) == right


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_batch_invariant_tokens_do_not_depend_on_who_else_is_there(dtype):
    runner = make_gpu_runner(dtype=dtype, batch_invariant=True)
    together = outputs(runner, make_load())
    for sequence, tokens in zip(make_load(), together, strict=True):
        assert outputs(runner, [sequence]) == [tokens]
    assert outputs(runner, make_load(), max_num_batched_tokens=24) == together
    assert outputs(make_gpu_runner(dtype=dtype, batch_invariant=True, num_blocks=30), make_load()) == together


# Steps


def start_decoding(runner: ModelRunner, count: int) -> Engine:
    engine = make_engine(runner)
    for n in range(count):
        engine.scheduler.add(make_sequence(10 + n, request_id=str(n), max_tokens=200))
    engine.step()
    engine.step()
    return engine


def test_a_decode_step_waits_for_nothing_but_its_tokens():
    """Which it does by an event, of which torch does not warn."""
    engine = start_decoding(make_gpu_runner(), 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mode says once that it is a prototype
        torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            engine.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [warning for warning in caught if "synchronizing" in str(warning.message)]
    assert not waits, [str(warning.message) for warning in waits]


def test_blocks_filled_by_a_step_without_tokens_are_complete_when_it_is_over():
    runner = make_gpu_runner()
    sequence = make_sequence(80)
    sequence.block_table = list(range(10))
    entry = ScheduledSequence(sequence=sequence, start=0, num_tokens=64, samples=False)
    assert runner.run(SchedulerOutput(scheduled=(entry,))) == []
    assert torch.cuda.current_stream(DEVICE).query()


def take_all_memory() -> list[torch.Tensor]:
    """What lies free between tensors; by size, as torch keeps small ones apart."""
    held = []
    for num_bytes in (2 << 20, 16 << 10):
        with suppress(torch.OutOfMemoryError):
            while True:
                held.append(torch.empty(num_bytes, dtype=torch.uint8, device=DEVICE))
    return held


def test_a_step_out_of_memory_names_its_requests_and_the_next_one_runs():
    runner = make_gpu_runner()
    engine = start_decoding(runner, 3)
    big = make_sequence(900, request_id="big")
    big.block_table = [100 + n for n in range(-(-900 // BLOCK_SIZE))]
    entry = ScheduledSequence(sequence=big, start=0, num_tokens=900, samples=True)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6, DEVICE)  # whatever is not held already is too much
    try:
        held = take_all_memory()
        with pytest.raises(OutOfDeviceMemory) as error:
            runner.run(SchedulerOutput(scheduled=(entry,)))
        held.clear()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, DEVICE)
    assert error.value.request_ids == ("big",)
    assert len(engine.step().tokens) == 3


def test_kv_takes_what_the_largest_step_leaves_and_that_step_still_fits():
    model = load_model(checkpoint("llama"), torch.bfloat16, device=DEVICE)
    limits = {"max_num_batched_tokens": 2048, "max_num_seqs": MAX_SEQS}
    num_blocks = measure_num_blocks(model, BLOCK_SIZE, **limits, utilization=0.5)
    total = torch.cuda.mem_get_info(DEVICE)[1]
    kv_cache = KVCache(num_blocks, *model.kv_shape(BLOCK_SIZE), torch.bfloat16, device=DEVICE)
    assert 0.3 * total < num_blocks * kv_cache.record_bytes < 0.5 * total
    runner = ModelRunner(model, kv_cache, GpuOptions(max_num_seqs=MAX_SEQS))
    assert len(runner.run(largest_step(BLOCK_SIZE, 2048, MAX_SEQS))) == MAX_SEQS


def test_logprobs_are_those_of_the_cpu():
    found, right = ([make_sequence(30, logprobs=3, max_tokens=8)] for _ in range(2))
    run(make_engine(make_gpu_runner()), *found)
    run(make_engine(make_runner()), *right)
    for mine, theirs in zip(found[0].logprobs, right[0].logprobs, strict=True):
        assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-3)
        assert [token_id for token_id, _ in mine.top] == [token_id for token_id, _ in theirs.top]
