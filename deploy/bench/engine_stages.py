"""Where a decode step on a CPU spends its time, by stage: the engine's own calls, timed where they are defined.

A stage's time is without what it calls of other stages. Timing costs a step about a hundred readings of the clock, so
steps that are timed in this way count for nothing else.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from time import perf_counter
from typing import Any

from cluster.engine.engine import Engine
from cluster.model import cpu_steps
from cluster.model.cpu_attention import CpuAttention
from cluster.model.decoder import Decoder, DecoderLayer
from cluster.model.layers import GatedMLP, RMSNorm, SelfAttention
from cluster.model.linear import Linear
from cluster.model.sampler import Sampling

LAYERS, EMBEDDING, NORMS = "layers, as one", "embedding, calls", "norms, residuals"
QKV, ROPE_AND_KV = "qkv", "rope, KV write"
ATTENTION, OUTPUT, MLP, LM_HEAD = "attention", "output projection", "MLP", "lm_head"
SAMPLING, HOST = "sampling", "scheduler, host"
STAGES = (LAYERS, EMBEDDING, NORMS, QKV, ROPE_AND_KV, ATTENTION, OUTPUT, MLP, LM_HEAD, SAMPLING, HOST)

Seconds = dict[str, float]


class StageClock:
    """Stages may call each other; `now_s` is the clock."""

    def __init__(self, now_s: Callable[[], float] = perf_counter) -> None:
        self.seconds: Seconds = dict.fromkeys(STAGES, 0.0)
        self._now_s = now_s
        self._inner_s: list[float] = []  # of every open call: what the calls within it took

    def timed(self, function: Callable[..., Any], stage_of: Callable[[Any], str]) -> Callable[..., Any]:
        """`stage_of` its first argument."""

        @wraps(function)
        def call(first: Any, *arguments: Any, **options: Any) -> Any:
            start_s = self._now_s()
            self._inner_s.append(0.0)
            try:
                return function(first, *arguments, **options)
            finally:
                took_s = self._now_s() - start_s
                self.seconds[stage_of(first)] += took_s - self._inner_s.pop()
                if self._inner_s:
                    self._inner_s[-1] += took_s

        return call


@contextmanager
def timed_stages(model: Decoder) -> Iterator[Seconds]:
    """What `Engine.step` takes from here on, by stage."""
    clock = StageClock()
    with ExitStack() as stack:
        for owner, name, stage_of in (*_places(stages_of_products(model)), *_places_of_kernels()):
            original = getattr(owner, name)
            setattr(owner, name, clock.timed(original, stage_of))
            stack.callback(setattr, owner, name, original)
        yield clock.seconds


def stages_of_products(model: Decoder) -> dict[Linear, str]:
    """Every product with weights, in the order of a step."""
    stages: dict[Linear, str] = {}
    for layer in model.layers:
        stages |= {layer.attention.qkv: QKV, layer.attention.output: OUTPUT}
        stages |= {layer.mlp.gate_up: MLP, layer.mlp.down: MLP}
    return stages | {model.lm_head: LM_HEAD}


def _places(products: dict[Linear, str]) -> Iterator[tuple[Any, str, Callable[[Any], str]]]:
    def always(stage: str) -> Callable[[Any], str]:
        return lambda _: stage

    yield Engine, "step", always(HOST)
    for name in ("__init__", "collect"):
        yield Sampling, name, always(SAMPLING)
    yield Decoder, "forward", always(EMBEDDING)
    yield Decoder, "logits", always(LM_HEAD)
    yield DecoderLayer, "__call__", always(NORMS)
    yield RMSNorm, "__call__", always(NORMS)
    yield SelfAttention, "__call__", always(ROPE_AND_KV)
    yield CpuAttention, "plan", always(HOST)
    yield CpuAttention, "attend", always(ROPE_AND_KV)
    for name in ("_decode", "_prefill"):
        yield CpuAttention, name, always(ATTENTION)
    yield GatedMLP, "__call__", always(MLP)
    yield Linear, "__call__", partial(_stage_of, products)


def _places_of_kernels() -> Iterator[tuple[Any, str, Callable[[Any], str]]]:
    """Numba's, where they have been loaded; the one that attends turns queries and keys and stores KV too.

    What is not in a kernel is the calls': rotations, views, Python.
    """
    yield cpu_steps, "fused_forward", lambda _: EMBEDDING
    if "cluster.model.numba_decoder" not in sys.modules:
        return
    from cluster.model import numba_layers
    from cluster.model.numba_attention import NumbaAttention
    from cluster.model.numba_decoder import NumbaDecoder

    yield NumbaDecoder, "logits", lambda _: LAYERS
    for name in ("norm", "add_norm"):
        yield numba_layers, name, lambda _: NORMS
    yield numba_layers, "silu_multiply", lambda _: MLP
    yield NumbaAttention, "plan", lambda _: HOST
    yield NumbaAttention, "turn_and_attend", lambda _: ATTENTION


def _stage_of(products: dict[Linear, str], linear: Linear) -> str:
    return products[linear]
