"""One turn of what `baton bench engine --device cuda` measures: decode steps in the engine's loop, and prefills."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import torch

from cluster.engine.block_manager import BlockManager
from cluster.engine.engine import Engine
from cluster.engine.sampling_params import SamplingParams
from cluster.engine.scheduler import Scheduler, SchedulerConfig
from cluster.engine.scheduler_output import ScheduledSequence, SchedulerOutput
from cluster.engine.sequence import Sequence
from cluster.model.batch import make_batch
from cluster.model.decoder import Decoder
from cluster.model.gpu_options import GpuOptions
from cluster.model.host_gap import HostGap
from cluster.model.kv_cache import KVCache
from cluster.model.linear import Linear
from cluster.model.runner import ModelRunner
from deploy.bench.engine_stages import stages_of_products
from deploy.bench.engine_turns import Prompts
from deploy.bench.gpu_figures import GRAPHS, INVARIANT, NO_GRAPHS, DecodeTurn
from deploy.bench.stopwatch import time_s

WARM_UP_STEPS = 4
PASSES = 20

_OPTIONS: dict[str, dict[str, bool]] = {
    GRAPHS: {},
    NO_GRAPHS: {"graphs": False},
    INVARIANT: {"batch_invariant": True},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A runner, and the products that the model has to have for it: some runners change these."""

    runner: ModelRunner
    products: dict[Linear, Callable[..., Any]]

    def use(self) -> ModelRunner:
        for linear, product in self.products.items():
            linear.product = product
        return self.runner


def make_way(name: str, model: Decoder, kv_cache: KVCache, max_num_seqs: int) -> Way:
    """Leaves the model as it was."""
    linears = list(stages_of_products(model))
    before = {linear: linear.product for linear in linears}
    runner = ModelRunner(model, kv_cache, GpuOptions(max_num_seqs=max_num_seqs, **_OPTIONS[name]))
    way = Way(runner=runner, products={linear: linear.product for linear in linears})
    Way(runner=runner, products=before).use()
    return way


def start_decoding(runner: ModelRunner, prompts: Prompts, num_new_tokens: int) -> Engine:
    """All have their KV already, whatever it is: the first step decodes."""
    cache = runner.kv_cache
    config = SchedulerConfig(
        max_num_seqs=len(prompts),
        max_num_batched_tokens=len(prompts),
        watermark_blocks=0,
        max_model_len=cache.num_tokens,
    )
    manager = BlockManager(cache.num_blocks, cache.block_size, enable_prefix_caching=False)
    engine = Engine(Scheduler(config, manager), runner)
    for number, prompt in enumerate(prompts):
        sequence = _sequence(str(number), prompt, num_new_tokens)
        if engine.scheduler.reserve(sequence, len(prompt), ()) is None:
            raise ValueError(f"{cache.num_blocks} blocks do not hold {len(prompts)} sequences of {len(prompt)} tokens")
        sequence.num_computed_tokens = len(prompt) - 1
        engine.scheduler.activate(sequence.request_id)
    return engine


def decode_turn(way: Way, prompts: Prompts, num_steps: int, bytes_per_s: float) -> DecodeTurn:
    runner = way.use()
    engine = start_decoding(runner, prompts, WARM_UP_STEPS + num_steps + 1)
    step_times(engine, WARM_UP_STEPS)
    runner.host_gap = HostGap()
    step_s = median(step_times(engine, num_steps))
    gap_share = runner.host_gap.share
    batch = make_batch(engine.scheduler.schedule().scheduled)
    device = runner.kv_cache.tensor.device
    with torch.inference_mode():
        pass_s = time_s(lambda: runner.compute(batch), device, PASSES)
    return DecodeTurn(step_s=step_s, pass_s=pass_s, gap_share=gap_share, bytes_per_s=bytes_per_s)


def step_times(engine: Engine, num_steps: int) -> list[float]:
    """A step is over when its tokens are there."""
    times, start = [], perf_counter()
    for _ in range(num_steps):
        engine.step()
        end = perf_counter()
        times.append(end - start)
        start = end
    return times


def prefill_s(way: Way, prompt: list[int]) -> float:
    """The whole prompt in one step, its first token included."""
    runner = way.use()
    sequence = _sequence("prefill", prompt, 1)
    sequence.block_table = list(range(-(-len(prompt) // runner.kv_cache.block_size)))
    entry = ScheduledSequence(sequence=sequence, start=0, num_tokens=len(prompt), samples=True)
    output = SchedulerOutput(scheduled=(entry,))
    return time_s(lambda: runner.run(output), runner.kv_cache.tensor.device)


def _sequence(request_id: str, prompt: list[int], max_tokens: int) -> Sequence:
    return Sequence(
        request_id=request_id,
        prompt_token_ids=tuple(prompt),
        sampling_params=SamplingParams(temperature=0.0, max_tokens=max_tokens),
        arrival_time_s=0.0,
    )
