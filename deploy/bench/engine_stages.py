"""Where a decode step on a CPU spends its time, by stage: the engine's own calls, timed where they are defined.

A stage's time is without what it calls of other stages. Timing costs a step about a hundred readings of the clock, and
where the whole step is one call of Numba's (`numba_decoder.py`), its kernels are called one by one instead; so steps
that are timed in this way count for nothing else.
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
from cluster.model.packed_products import NumbaProduct
from cluster.model.sampler import Sampling

EMBEDDING, NORMS = "embedding, calls", "norms, residuals"
QKV, ROPE_AND_KV = "qkv", "rope, KV write"
ATTENTION, OUTPUT, MLP, LM_HEAD = "attention", "output projection", "MLP", "lm_head"
SAMPLING, HOST = "sampling", "scheduler, host"
STAGES = (EMBEDDING, NORMS, QKV, ROPE_AND_KV, ATTENTION, OUTPUT, MLP, LM_HEAD, SAMPLING, HOST)

Seconds = dict[str, float]
StageOf = Callable[..., str]
Place = tuple[Any, str, StageOf]


class StageClock:
    """Stages may call each other; `now_s` is the clock."""

    def __init__(self, now_s: Callable[[], float] = perf_counter) -> None:
        self.seconds: Seconds = dict.fromkeys(STAGES, 0.0)
        self._now_s = now_s
        self._inner_s: list[float] = []  # of every open call: what the calls within it took

    def timed(self, function: Callable[..., Any], stage_of: StageOf) -> Callable[..., Any]:
        """`stage_of` its arguments."""

        @wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            start_s = self._now_s()
            self._inner_s.append(0.0)
            try:
                return function(*arguments, **options)
            finally:
                took_s = self._now_s() - start_s
                self.seconds[stage_of(*arguments)] += took_s - self._inner_s.pop()
                if self._inner_s:
                    self._inner_s[-1] += took_s

        return call


@contextmanager
def timed_stages(model: Decoder) -> Iterator[Seconds]:
    """What `Engine.step` takes from here on, by stage."""
    clock = StageClock()
    with ExitStack() as stack:

        def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
            original = getattr(owner, name)
            setattr(owner, name, make(original))
            stack.callback(setattr, owner, name, original)

        for owner, name in _compiled_wholes():
            replace(owner, name, lambda compiled: compiled.py_func)
        products = stages_of_products(model)
        for owner, name, stage_of in (*_places(products), *_places_of_kernels(products)):
            replace(owner, name, partial(clock.timed, stage_of=stage_of))
        yield clock.seconds


def stages_of_products(model: Decoder) -> dict[Linear, str]:
    """Every product with weights, in the order of a step."""
    of_layers = [QKV, OUTPUT, MLP, MLP] * len(model.layers)
    return dict(zip(model.linears, [*of_layers, LM_HEAD], strict=True))


def has_kernels() -> bool:
    """Whether Numba's have been loaded here."""
    return "cluster.model.numba_decoder" in sys.modules


def _always(stage: str) -> StageOf:
    return lambda *_: stage


def _places(products: dict[Linear, str]) -> Iterator[Place]:
    yield Engine, "step", _always(HOST)
    for name in ("__init__", "collect"):
        yield Sampling, name, _always(SAMPLING)
    yield Decoder, "forward", _always(EMBEDDING)
    yield Decoder, "logits", _always(LM_HEAD)
    yield DecoderLayer, "__call__", _always(NORMS)
    yield RMSNorm, "__call__", _always(NORMS)
    yield SelfAttention, "__call__", _always(ROPE_AND_KV)
    yield CpuAttention, "plan", _always(HOST)
    yield CpuAttention, "attend", _always(ROPE_AND_KV)
    for name in ("_decode", "_prefill"):
        yield CpuAttention, name, _always(ATTENTION)
    yield GatedMLP, "__call__", _always(MLP)
    yield Linear, "__call__", lambda linear, _: products[linear]


def _compiled_wholes() -> list[tuple[Any, str]]:
    """What Numba has compiled together, where it is loaded; in Python, it calls kernels one by one."""
    if not has_kernels():
        return []
    from cluster.model import numba_decoder, numba_kernels

    return [(numba_decoder, "decode"), (numba_kernels, "decode_layer")]


def _places_of_kernels(products: dict[Linear, str]) -> Iterator[Place]:
    """Numba's; the one that attends turns queries and keys and stores KV too.

    What is not in a kernel is the calls': views, Python.
    """
    yield cpu_steps, "fused_forward", _always(EMBEDDING)
    if not has_kernels():
        return
    from cluster.model import numba_decoder, numba_kernels, numba_layers
    from cluster.model.numba_attention import NumbaAttention

    yield numba_decoder, "decode", _always(EMBEDDING)
    for name in ("add_norm_rows", "norm_some", "norm_heads"):
        yield numba_kernels, name, _always(NORMS)
    packed = {
        linear.product.packed.data_ptr(): stage
        for linear, stage in products.items()
        if isinstance(linear.product, NumbaProduct)
    }
    yield numba_kernels, "multiply", lambda _, weight, *rest: packed[weight]
    yield numba_kernels, "turn_and_attend", _always(ATTENTION)
    yield numba_kernels, "multiply_gates", _always(MLP)

    yield NumbaAttention, "plan", _always(HOST)
    yield NumbaAttention, "turn_and_attend", _always(ATTENTION)
    for name in ("norm", "add_norm"):
        yield numba_layers, name, _always(NORMS)
    yield numba_layers, "silu_multiply", _always(MLP)
