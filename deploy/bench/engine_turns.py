"""One turn of what `baton bench engine` compares: the engine, the matrix products alone, and transformers."""

import statistics
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch

from cluster.engine.block_manager import BlockManager
from cluster.engine.engine import Engine
from cluster.engine.sampling_params import SamplingParams
from cluster.engine.scheduler import Scheduler, SchedulerConfig
from cluster.engine.sequence import Sequence
from cluster.model.decoder import Decoder
from cluster.model.runner import ModelRunner

Prompts = list[list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A batch from prompts to ends; `decode_s` is from when all have their first token to when all have their last."""

    prefill_s: float
    decode_s: float
    output_token_ids: list[list[int]]


def generate(runner: ModelRunner, prompts: Prompts, num_new_tokens: int) -> Generation:
    """By the engine's own loop, scheduler included. All prompts fit into the budget of the first step."""
    num_tokens, cache = sum(map(len, prompts)), runner.kv_cache
    config = SchedulerConfig(
        max_num_seqs=len(prompts), max_num_batched_tokens=num_tokens, watermark_blocks=0, max_model_len=cache.num_tokens
    )
    scheduler = Scheduler(config, BlockManager(cache.num_blocks, cache.block_size))
    engine = Engine(scheduler, runner)
    params = SamplingParams(temperature=0.0, max_tokens=num_new_tokens)
    sequences = [
        Sequence(request_id=str(n), prompt_token_ids=tuple(prompt), sampling_params=params, arrival_time_s=0.0)
        for n, prompt in enumerate(prompts)
    ]
    for sequence in sequences:
        scheduler.add(sequence)
    start = perf_counter()
    engine.step()
    first = perf_counter()
    while scheduler.has_work:
        engine.step()
    end = perf_counter()
    return Generation(
        prefill_s=first - start,
        decode_s=end - first,
        output_token_ids=[sequence.output_token_ids for sequence in sequences],
    )


@torch.inference_mode()
def products_s(model: Decoder, num_rows: int, num_passes: int = 20) -> float:
    """Median time of one decode step's products with the weights, as the model lays them out, and nothing else."""
    linears = [
        linear
        for layer in model.layers
        for linear in (layer.attention.qkv, layer.attention.output, layer.mlp.gate_up, layer.mlp.down)
    ]
    linears.append(model.lm_head)
    rows = {size: torch.randn(num_rows, size).to(model.dtype) for size in {linear.in_features for linear in linears}}
    times = []
    for _ in range(num_passes):
        start = perf_counter()
        for linear in linears:
            linear(rows[linear.in_features])
        times.append(perf_counter() - start)
    return statistics.median(times)


class TransformersReference:
    """`generate` of transformers on the same checkpoint: greedy, its default cache and attention, no end of text."""

    def __init__(self, path: str, dtype: torch.dtype) -> None:
        from transformers import AutoModelForCausalLM

        self.model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()  # type: ignore[no-untyped-call]
        self.model.generation_config.eos_token_id = None

    @torch.inference_mode()
    def generate(self, prompts: Prompts, num_new_tokens: int) -> Generation:
        """Takes the time after each step where transformers asks whether to stop, which it does anyway."""
        times: list[float] = []

        def note_time(token_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            times.append(perf_counter())
            return torch.zeros(len(token_ids), dtype=torch.bool)

        prompt = torch.tensor(prompts)
        start = perf_counter()
        output = self.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=num_new_tokens,
            do_sample=False,
            pad_token_id=0,
            stopping_criteria=[note_time],
        )
        return Generation(
            prefill_s=times[0] - start,
            decode_s=times[-1] - times[0],
            output_token_ids=output[:, prompt.shape[1] :].tolist(),
        )
