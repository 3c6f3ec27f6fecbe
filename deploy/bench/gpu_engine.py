"""`baton bench engine --device cuda`: the engine on a GPU, beside what that GPU's memory and products reach.

Everything takes turns: before each decode turn the memory's bandwidth is measured, before each prefill the rate of
products. Random weights are made on the device; KV is there without a prefill.
"""

import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from cluster.model.config import ModelConfig
from cluster.model.decoder import Decoder
from cluster.model.device import DeviceUnavailable, find_device, free_bytes, use_device
from cluster.model.kv_cache import KVCache
from cluster.model.kv_sizing import GIB
from cluster.model.load import DTYPES, load_model
from cluster.model.random_weights import llama_3_8b, random_model
from deploy.bench.device_rates import MemoryRate, ProductRate
from deploy.bench.engine_bound import decode_step_bytes, kv_bytes_per_token, prefill_flops
from deploy.bench.gpu_figures import (
    GRAPHS,
    WAYS,
    DecodeTurn,
    PrefillTurn,
    decode_row,
    engine_aims,
    prefill_row,
)
from deploy.bench.gpu_turns import WARM_UP_STEPS, decode_turn, make_way, prefill_s

BLOCK_SIZE = 16
PREFILL_TOKENS = (2048, 4096, 8192)
PREFILL_WAYS = tuple(way for way in WAYS if way != "no graphs")  # a prefill has none
SPARE_BYTES = 8 * GIB  # activations of the largest step, graphs, libraries

Show = Callable[[str, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`memory_bytes` and `product_size`: what the device's own rates are measured with."""

    batch_sizes: tuple[int, ...]
    num_context_tokens: int
    num_steps: int
    prefill_tokens: tuple[int, ...] = PREFILL_TOKENS
    num_repeats: int = 5
    memory_bytes: int = 4 * GIB
    product_size: int = 8192

    @property
    def num_tokens(self) -> int:
        """Of a sequence that decodes, at its end."""
        return self.num_context_tokens + WARM_UP_STEPS + self.num_steps + 2

    @property
    def num_blocks(self) -> int:
        decoding = max(self.batch_sizes) * -(-self.num_tokens // BLOCK_SIZE)
        return max(decoding, -(-max(self.prefill_tokens) // BLOCK_SIZE))


def run_on_gpu(
    device_name: str,
    model_path: Path | None,
    *,
    batch_sizes: tuple[int, ...],
    num_prompt_tokens: int,
    num_new_tokens: int,
    num_repeats: int,
    dtype: str,
    quick: bool,
    show: Show,
) -> dict[str, Any]:
    """Raises DeviceUnavailable where there is no GPU, or one that is too small, and CheckpointError."""
    device = find_gpu(device_name)
    config = llama_3_8b() if model_path is None else ModelConfig.from_checkpoint(model_path)
    plan = Plan(
        batch_sizes=batch_sizes,
        num_context_tokens=num_prompt_tokens,
        num_steps=min(num_new_tokens, 16) if quick else num_new_tokens,
        prefill_tokens=fitting(PREFILL_TOKENS[:1] if quick else PREFILL_TOKENS, config.max_model_len),
        num_repeats=min(num_repeats, 2) if quick else num_repeats,
    )
    check_room(plan, config, DTYPES[dtype].itemsize, free_bytes(device))
    use_device(device)
    if model_path is None:
        model = random_model(config, DTYPES[dtype], device)
    else:
        model = load_model(model_path, DTYPES[dtype], device=device)
    described = {"model": str(model_path) if model_path else "Llama-3-8B's shape, random weights", "dtype": dtype}
    return {**described, **environment(device), **measure(model, device, plan, show)}


def find_gpu(name: str) -> torch.device:
    device = find_device(name)
    if device.type == "cpu":
        raise DeviceUnavailable("there is no GPU here")
    return device


def fitting(lengths: tuple[int, ...], most: int) -> tuple[int, ...]:
    return tuple(length for length in lengths if length <= most) or (most,)


def check_room(plan: Plan, config: ModelConfig, itemsize: int, free: int) -> None:
    """Before anything is made; raises DeviceUnavailable that says how much is missing."""
    if plan.num_tokens > config.max_model_len:
        raise ValueError(f"{plan.num_tokens} tokens a sequence: the model takes {config.max_model_len}")
    kv_bytes = plan.num_blocks * BLOCK_SIZE * kv_bytes_per_token(config, itemsize)
    needed = config.num_parameters * itemsize + kv_bytes + 2 * plan.memory_bytes + SPARE_BYTES
    if needed > free:
        raise DeviceUnavailable(
            f"weights, KV and what is measured with take {needed / GIB:.1f} GiB, and the GPU has {free / GIB:.1f} GiB "
            f"free: {(needed - free) / GIB:.1f} GiB are missing; fewer or shorter sequences take less"
        )


def measure(model: Decoder, device: torch.device, plan: Plan, show: Show) -> dict[str, Any]:
    """All turns, on whatever device: tests take a CPU."""
    turns = _Turns(model, device, plan, show)
    for repeat in range(plan.num_repeats + 1):
        turns.run()
        if repeat == 0:
            turns.forget()  # the first only warmed up
    return turns.figures()


class _Turns:
    def __init__(self, model: Decoder, device: torch.device, plan: Plan, show: Show) -> None:
        self._model, self._plan, self._show = model, plan, show
        kv_cache = KVCache(plan.num_blocks, *model.kv_shape(BLOCK_SIZE), model.dtype, device=device)
        with torch.inference_mode():
            kv_cache.tensor.normal_()
        self._num_turns = (plan.num_repeats + 1) * (
            len(plan.batch_sizes) * len(WAYS) + len(plan.prefill_tokens) * len(PREFILL_WAYS)
        )
        show("making runners", self._num_turns)
        self._ways = {name: make_way(name, model, kv_cache, max(plan.batch_sizes)) for name in WAYS}
        self._memory = MemoryRate(device, plan.memory_bytes)
        self._products = ProductRate(device, model.dtype, plan.product_size)
        longest = max(plan.num_context_tokens, *plan.prefill_tokens)
        generator = torch.Generator().manual_seed(0)
        shape = (max(plan.batch_sizes), longest)
        self._prompts: list[list[int]] = torch.randint(model.config.vocab_size, shape, generator=generator).tolist()
        self.forget()

    def forget(self) -> None:
        self._decodes: dict[tuple[int, str], list[DecodeTurn]] = {}
        self._prefills: dict[tuple[int, str], list[PrefillTurn]] = {}

    def run(self) -> None:
        plan = self._plan
        for size in plan.batch_sizes:
            prompts = [prompt[: plan.num_context_tokens] for prompt in self._prompts[:size]]
            for name, way in self._ways.items():
                self._show(f"decode at batch {size}: {name}", self._num_turns)
                turn = decode_turn(way, prompts, plan.num_steps, self._memory.measure())
                self._decodes.setdefault((size, name), []).append(turn)
        for length in plan.prefill_tokens:
            for name in PREFILL_WAYS:
                self._show(f"prefill of {length}: {name}", self._num_turns)
                flops_per_s = self._products.measure()
                took_s = prefill_s(self._ways[name], self._prompts[0][:length])
                prefill = PrefillTurn(seconds=took_s, flops_per_s=flops_per_s)
                self._prefills.setdefault((length, name), []).append(prefill)

    def figures(self) -> dict[str, Any]:
        plan, config = self._plan, self._model.config
        context = plan.num_context_tokens + WARM_UP_STEPS + plan.num_steps / 2
        decode, prefill = [], []
        for (size, name), turns in self._decodes.items():
            num_bytes = decode_step_bytes(config, size, context, self._model.dtype.itemsize)
            decode.append(decode_row(size, name, turns, self._decodes[size, GRAPHS], num_bytes))
        for (length, name), prefills in self._prefills.items():
            flops = prefill_flops(config, length)
            prefill.append(prefill_row(length, name, prefills, self._prefills[length, GRAPHS], flops))
        figures: dict[str, Any] = {
            "num_parameters": config.num_parameters,
            "num_context_tokens": plan.num_context_tokens,
            "num_steps": plan.num_steps,
            "num_repeats": plan.num_repeats,
            "attention": self._attention(),
            "memory_bytes_per_s": max(turn.bytes_per_s for each in self._decodes.values() for turn in each),
            "product_flops_per_s": max(turn.flops_per_s for each in self._prefills.values() for turn in each),
            "decode": decode,
            "prefill": prefill,
        }
        return {**figures, "aims": [aim.to_dict() for aim in engine_aims(figures)]}

    def _attention(self) -> str:
        attention = self._ways[GRAPHS].runner.gpu_attention
        flash = getattr(attention, "flash", None)
        return type(attention).__name__ + (f" on FlashAttention {flash}" if flash else "")


def environment(device: torch.device) -> dict[str, Any]:
    """The hardware and the versions, for whoever keeps the figures."""
    versions = {"python": platform.python_version(), "torch": torch.__version__, "cuda": str(torch.version.cuda)}
    for package in ("triton", "cupy-cuda12x", "cupy-cuda13x", "nvidia-nccl-cu12", "nvidia-nccl-cu13"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    properties = torch.cuda.get_device_properties(device)
    gpu = f"{properties.name}, {properties.total_memory / GIB:.0f} GiB"
    return {"gpu": gpu, "num_gpus": torch.cuda.device_count(), "versions": versions}
