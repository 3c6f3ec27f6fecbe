"""The body of `baton profile`: the engine that instances run, its steps timed, and a latency model fitted to them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch

from cluster.latency.fit import TimedStep, fit, residuals
from cluster.latency.fitted import FittedHardware
from cluster.model.kv_cache import KVCache
from cluster.model.load import DTYPES, load_model
from cluster.model.runner import ModelRunner
from cluster.spec.quantity import format_bytes, format_count
from deploy.profiling.device import cpu_name
from deploy.profiling.grid import Limits, grid
from deploy.profiling.timed_steps import Step, StepTimer

FITTED = ("prefill", "chunk", "decode")
"""Mixed steps are timed to see how well their formula foretells them."""


LEAST_KV_TOKENS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileOptions:
    """`num_threads` 0: torch's default. Each step is timed `num_repeats` times, in turns with all others."""

    dtype: str = "float32"
    num_threads: int = 0
    block_size: int = 16
    kv_cache_memory_bytes: int = 256 << 20
    max_prompt_tokens: int = 2048
    max_batch: int = 32
    num_repeats: int = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """`steps`: by kind, as `grid` has them."""

    hardware: FittedHardware
    steps: dict[str, list[TimedStep]]


def profile(
    model_path: Path, options: ProfileOptions, show: Callable[[int, int], None] = lambda done, total: None
) -> Profile:
    """`show` hears how many of how many timings are done. Raises CheckpointError, ValueError for too little memory."""
    if options.num_threads:
        torch.set_num_threads(options.num_threads)
    model = load_model(model_path, DTYPES[options.dtype])
    kv_shape = (*model.kv_shape(options.block_size), model.dtype)
    record_bytes = KVCache.record_bytes_for(*kv_shape)
    num_blocks = options.kv_cache_memory_bytes // record_bytes
    if num_blocks * options.block_size < LEAST_KV_TOKENS:
        room = f"{format_bytes(options.kv_cache_memory_bytes)} hold the KV of {num_blocks * options.block_size} tokens"
        raise ValueError(f"{room}; at least {LEAST_KV_TOKENS} are needed to time anything")
    limits = Limits(
        max_prompt_tokens=min(options.max_prompt_tokens, model.config.max_model_len - 1),
        max_batch=options.max_batch,
        max_model_len=model.config.max_model_len,
        num_blocks=num_blocks,
        block_size=options.block_size,
    )
    timer = StepTimer(ModelRunner(model, KVCache(num_blocks, *kv_shape)))
    steps = _time(timer, grid(limits), options.num_repeats, show)
    fitted = fit([step for kind in FITTED for step in steps[kind]])
    hardware = FittedHardware(
        model_name=model_path.resolve().name,
        device=f"{cpu_name()}, {format_count(torch.get_num_threads(), 'thread')}",
        dtype=options.dtype,
        kv_bytes_per_token=record_bytes / options.block_size,
        kv_memory_bytes=options.kv_cache_memory_bytes,
        coefficients=fitted,
        residuals={kind: residuals(fitted, found) for kind, found in steps.items() if found},
    )
    return Profile(hardware=hardware, steps=steps)


def _time(
    timer: StepTimer, kinds: dict[str, list[Step]], num_repeats: int, show: Callable[[int, int], None]
) -> dict[str, list[TimedStep]]:
    """The lower quartile of each: what disturbs a measurement only ever makes it longer.

    All take turns in any order, so that what disturbs the machine for a while disturbs all alike.
    """
    planned = [step for steps in kinds.values() for step in steps]
    times: dict[Step, list[float]] = {step: [] for step in planned}
    total, chance = len(planned) * num_repeats, Random(0)
    for turn in range(num_repeats):
        for place, step in enumerate(chance.sample(planned, len(planned)), 1):
            timer.seconds(step)  # steps of an engine mostly come after others like them: caches are warm
            times[step].append(timer.seconds(step))
            show(turn * len(planned) + place, total)
    timed = {step: TimedStep(step.shape, _lower_quartile(found)) for step, found in times.items()}
    return {kind: [timed[step] for step in steps] for kind, steps in kinds.items()}


def _lower_quartile(times: list[float]) -> float:
    return sorted(times)[(len(times) - 1) // 4]
