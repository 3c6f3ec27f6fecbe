import importlib
from dataclasses import replace

import pytest
import torch

from cluster.engine.scheduler_output import ScheduledSequence
from cluster.engine.sequence import Sequence
from cluster.model import cpu_steps
from cluster.model.batch import make_batch
from cluster.model.cpu_steps import make_cpu_steps
from cluster.model.load import load_model
from cluster.model.random_checkpoint import make_random_checkpoint
from cluster.model.runner import ModelRunner
from tests.unit.model.factories import (
    BLOCK_SIZE,
    SHAPES,
    make_engine,
    make_runner,
    make_sequence,
    reference,
    reference_tokens,
    run,
)

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True, params=["torch", "numba"])
def kernels(request, monkeypatch):
    if request.param == "numba":
        importlib.import_module("tests.unit.model.numba_kernels")
        monkeypatch.setattr(cpu_steps, "LEAST_PARAMETERS", 0)


@torch.inference_mode()
def reference_logits(name: str, sequence: Sequence) -> torch.Tensor:
    return reference(name)(torch.tensor([sequence.prompt_token_ids])).logits[0]


@torch.inference_mode()
def logits_of(runner: ModelRunner, chunks: list[tuple[Sequence, int, int]]) -> list[torch.Tensor]:
    """Logits of every token of these (sequence, start, end), computed in one forward pass."""
    batch = make_batch(
        [
            ScheduledSequence(sequence=sequence, start=start, num_tokens=end - start, samples=True)
            for sequence, start, end in chunks
        ]
    )
    every_row = replace(batch, last_rows=torch.arange(len(batch.token_ids)))
    logits = make_cpu_steps(runner.model, runner.kv_cache).compute(every_row).clone()
    ends = [row + 1 for row in batch.last_rows.tolist()]
    return [logits[row - (end - start) : row] for row, (_, start, end) in zip(ends, chunks, strict=True)]


@pytest.mark.parametrize("name", SHAPES)
def test_logits_of_a_whole_prompt_are_those_of_transformers(name):
    sequence = make_sequence(100)
    sequence.block_table = [5, 3, 9, 11, 2, 8, 30, 31, 32, 33, 1, 0, 7]
    (logits,) = logits_of(make_runner(name), [(sequence, 0, 100)])
    assert (logits - reference_logits(name, sequence)).abs().max() < 1e-4


@pytest.mark.parametrize("name", SHAPES)
def test_logits_of_a_mixed_batch_are_those_of_transformers(name):
    """Chunks and single tokens of four sequences, of very different lengths, in one pass after the other."""
    runner = make_runner(name, num_blocks=64)
    sequences = [make_sequence(length) for length in (100, 37, 9, 64)]
    tables = iter(torch.randperm(64, generator=torch.Generator().manual_seed(0)).tolist())
    for sequence in sequences:
        sequence.block_table = [next(tables) for _ in range(-(-sequence.num_tokens // BLOCK_SIZE))]
    steps = [
        [(0, 0, 60), (1, 0, 36), (2, 0, 8)],
        [(2, 8, 9), (0, 60, 61), (3, 0, 33), (1, 36, 37)],
        [(0, 61, 99), (3, 33, 63)],
        [(3, 63, 64), (0, 99, 100)],
    ]
    for step in steps:
        chunks = [(sequences[index], start, end) for index, start, end in step]
        for (sequence, start, end), logits in zip(chunks, logits_of(runner, chunks), strict=True):
            assert (logits - reference_logits(name, sequence)[start:end]).abs().max() < 1e-4


@pytest.mark.parametrize("name", SHAPES)
def test_a_single_request_yields_the_tokens_of_transformers(name):
    sequence = make_sequence(20)
    run(make_engine(make_runner(name)), sequence)
    assert sequence.output_token_ids == reference_tokens(name, sequence.prompt_token_ids)


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_a_batch_whose_prompts_are_prefilled_in_chunks_beside_decodes_yields_the_tokens_of_transformers(name):
    sequences = [make_sequence(length, request_id=str(length)) for length in (5, 90, 33, 70, 1)]
    run(make_engine(make_runner(name, num_blocks=128), max_num_batched_tokens=24), *sequences)
    for sequence in sequences:
        assert sequence.output_token_ids == reference_tokens(name, sequence.prompt_token_ids)


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_a_request_that_finds_its_prefix_cached_yields_the_tokens_of_transformers(name):
    engine = make_engine(make_runner(name))
    first = make_sequence(50, request_id="first")
    run(engine, first)
    longer = make_sequence((*first.prompt_token_ids, *first.output_token_ids[:30], 7), request_id="longer")
    run(engine, longer)
    assert longer.num_cached_tokens == 80
    assert longer.output_token_ids == reference_tokens(name, longer.prompt_token_ids)


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_requests_that_were_preempted_yield_the_tokens_of_transformers(name):
    sequences = [make_sequence(length, request_id=str(length)) for length in (40, 41, 42)]
    assert run(make_engine(make_runner(name, num_blocks=24)), *sequences) > 0
    for sequence in sequences:
        assert sequence.output_token_ids == reference_tokens(name, sequence.prompt_token_ids)


def test_a_sequence_decodes_the_same_beside_blocks_full_of_nan():
    runner = make_runner()
    runner.kv_cache.tensor.fill_(float("nan"))
    sequences = [make_sequence(length, request_id=str(length)) for length in (3, 30, 17)]
    run(make_engine(runner), *sequences)
    for sequence in sequences:
        assert sequence.output_token_ids == reference_tokens("llama", sequence.prompt_token_ids)


def test_bf16_logits_stay_close_to_fp32():
    sequence = make_sequence(60)
    sequence.block_table = list(range(8))
    (logits,) = logits_of(make_runner("qwen3", dtype=torch.bfloat16), [(sequence, 0, 60)])
    exact = reference_logits("qwen3", sequence)
    assert logits.dtype == torch.float32
    assert (logits - exact).abs().max() < 0.05 * exact.abs().max()


def test_bf16_decodes_in_chunks_and_batches_and_a_bf16_checkpoint_loads_as_bf16(tmp_path):
    model = load_model(make_random_checkpoint(tmp_path, dtype="bfloat16"))
    assert model.dtype == torch.bfloat16
    runner = make_runner("llama", dtype=torch.bfloat16)
    sequences = [make_sequence(length, request_id=str(length), max_tokens=8) for length in (5, 40)]
    run(make_engine(runner, max_num_batched_tokens=16), *sequences)
    assert [sequence.num_output_tokens for sequence in sequences] == [8, 8]
