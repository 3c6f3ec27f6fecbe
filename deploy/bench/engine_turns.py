"""One turn of what `baton bench engine` compares: the engine, the matrix products alone, and transformers."""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from time import perf_counter
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from cluster.engine.block_manager import BlockManager
from cluster.engine.engine import Engine
from cluster.engine.sampling_params import SamplingParams
from cluster.engine.scheduler import Scheduler, SchedulerConfig
from cluster.engine.sequence import Sequence
from cluster.model.decoder import Decoder
from cluster.model.linear import Linear, Product
from cluster.model.packed_products import NumbaProduct, OneDnnProduct, has_onednn
from cluster.model.runner import ModelRunner
from deploy.bench.engine_stages import Seconds, stages_of_products, timed_stages

Prompts = list[list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A batch from prompts to ends; `decode_s` is from when all have their first token to when all have their last.

    `step_s`: the median of the decode steps in it, where they are seen.
    """

    prefill_s: float
    decode_s: float
    step_s: float
    output_token_ids: list[list[int]]


def generate(runner: ModelRunner, prompts: Prompts, num_new_tokens: int) -> Generation:
    """By the engine's own loop, scheduler included. All prompts fit into the budget of the first step."""
    engine, sequences = start_engine(runner, prompts, num_new_tokens)
    start = perf_counter()
    times = []
    while engine.scheduler.has_work:
        engine.step()
        times.append(perf_counter())
    return _generation(start, times, [sequence.output_token_ids for sequence in sequences])


def _generation(start: float, times: list[float], output_token_ids: list[list[int]]) -> Generation:
    """`times`: when each step was over, the first of which was the prefill."""
    return Generation(
        prefill_s=times[0] - start,
        decode_s=times[-1] - times[0],
        step_s=statistics.median(later - earlier for earlier, later in pairwise(times)),
        output_token_ids=output_token_ids,
    )


def decode_stages(runner: ModelRunner, prompts: Prompts, num_new_tokens: int) -> Seconds:
    """The decode steps of the same, by stage: seconds a step."""
    engine, _ = start_engine(runner, prompts, num_new_tokens)
    engine.step()
    with timed_stages(runner.model) as seconds:
        while engine.scheduler.has_work:
            engine.step()
    return {stage: took_s / (num_new_tokens - 1) for stage, took_s in seconds.items()}


def start_engine(runner: ModelRunner, prompts: Prompts, num_new_tokens: int) -> tuple[Engine, list[Sequence]]:
    """Nothing is computed yet; greedy, and without an end of text."""
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
    return engine, sequences


@torch.inference_mode()
def products_s(model: Decoder, num_rows: int, num_passes: int = 20) -> Seconds:
    """One decode step's products with the weights, as the step calls them, and nothing else: medians by stage."""
    products, rows = stages_of_products(model), _random_rows(model, num_rows)
    calls = [(_own_product(linear, rows[linear.in_features]), stage) for linear, stage in products.items()]
    passes = []
    for _ in range(num_passes):
        seconds = dict.fromkeys(products.values(), 0.0)
        start = perf_counter()
        for call, stage in calls:
            call()
            end = perf_counter()
            seconds[stage] += end - start
            start = end
        passes.append(seconds)
    return {stage: statistics.median(each[stage] for each in passes) for stage in passes[0]}


@torch.inference_mode()
def torch_products_s(model: Decoder, num_rows: int, num_passes: int = 10) -> float:
    """One decode step's products with the weights by torch, in the fastest of the ways that it has: a median."""
    rows = _random_rows(model, num_rows)
    return min(_median_s(model.linears, products, rows, num_passes) for products in _ways_of_torch(model, num_rows))


def _ways_of_torch(model: Decoder, num_rows: int) -> Iterator[list[Product]]:
    """With weights as they lie, packed by oneDNN, and packed by MKL for so many rows."""
    weights = [linear.weight for linear in model.linears]
    yield [F.linear for _ in weights]
    if model.dtype != torch.float32 or not has_onednn():
        return
    yield [OneDnnProduct(weight) for weight in weights]
    if torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        yield [_mkl_product(weight, num_rows) for weight in weights]


def _mkl_product(weight: torch.Tensor, num_rows: int) -> Product:
    packed = torch.ops.mkl._mkl_reorder_linear_weight(weight, num_rows)
    return lambda rows, _, bias: torch.ops.mkl._mkl_linear(rows, packed, weight, bias, num_rows)


def _median_s(linears: list[Linear], products: list[Product], rows: dict[int, torch.Tensor], num_passes: int) -> float:
    times_s = []
    for _ in range(num_passes):
        start = perf_counter()
        for linear, product in zip(linears, products, strict=True):
            product(rows[linear.in_features], linear.weight, None)
        times_s.append(perf_counter() - start)
    return statistics.median(times_s)


def _random_rows(model: Decoder, num_rows: int) -> dict[int, torch.Tensor]:
    """By their size."""
    sizes = {linear.in_features for linear in model.linears}
    return {size: torch.randn(num_rows, size).to(model.dtype) for size in sizes}


def _own_product(linear: Linear, rows: torch.Tensor) -> Callable[[], object]:
    """By Numba's kernel, where it is the product, into memory that is there."""
    if not isinstance(linear.product, NumbaProduct):
        return partial(linear, rows)
    from cluster.model.numba_kernels import multiply

    product = rows.new_zeros(len(rows), linear.out_features)
    return partial(multiply, rows.numpy(), linear.product.packed.data_ptr(), False, product.numpy())


class Reference(Protocol):
    """What the engine is compared with; `version` is that of its package."""

    version: str

    def generate(self, prompts: Prompts, num_new_tokens: int) -> Generation: ...


class TransformersReference:
    """`generate` of transformers on the same checkpoint: greedy, its default cache and attention, no end of text."""

    def __init__(self, path: str, dtype: torch.dtype) -> None:
        from transformers import AutoModelForCausalLM, __version__

        self.version = __version__
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
        return _generation(start, times, output[:, prompt.shape[1] :].tolist())
