"""What is known of GPUs beside their kernels: memory, and the links between them."""

from dataclasses import dataclass

from cluster.latency.engine_cost import EngineCost
from cluster.latency.known import find_known

NUM_GPUS_A_NODE = 8
"""As in the DGX and HGX machines that were measured; more of them have the network between them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """From GPU to GPU: send and receive, as vidur measured it (github.com/microsoft/vidur, MIT)."""

    alpha_s: float
    beta_bytes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """`engine`: what an engine adds to the kernels of this GPU, as measured end to end."""

    name: str
    memory_bytes: int
    memory_bytes_per_s: float
    in_node: Wire
    between_nodes: Wire
    engine: EngineCost


_A100 = {
    "in_node": Wire(alpha_s=8e-6, beta_bytes_per_s=228e9),
    "between_nodes": Wire(alpha_s=24e-6, beta_bytes_per_s=7.8e9),
}
_H100 = {
    "in_node": Wire(alpha_s=5e-6, beta_bytes_per_s=348e9),
    "between_nodes": Wire(alpha_s=17e-6, beta_bytes_per_s=36e9),
}
_A100_ENGINE = EngineCost(
    kernels=1.12,
    prefill_layer_s=0.72e-3,
    decode_layer_s=0.54e-3,
    sequence_layer_s=3.75e-6,
    large_all_reduce=3.0,
)
_H100_ENGINE = EngineCost(
    kernels=1.3,
    prefill_layer_s=0.62e-3,
    decode_layer_s=0.36e-3,
    sequence_layer_s=3e-6,
    large_all_reduce=2.2,
)

_GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu(name="a100", memory_bytes=80 << 30, memory_bytes_per_s=2.039e12, engine=_A100_ENGINE, **_A100),
        Gpu(name="h100", memory_bytes=80 << 30, memory_bytes_per_s=3.35e12, engine=_H100_ENGINE, **_H100),
        # Its kernels were timed; engine and wires are taken to be those of the H100.
        Gpu(name="h200", memory_bytes=141_000_000_000, memory_bytes_per_s=4.8e12, engine=_H100_ENGINE, **_H100),
    )
}

GPU_NAMES = tuple(_GPUS)


def gpu_named(name: str) -> Gpu:
    """ValueError lists those there are."""
    return find_known("GPU", name, _GPUS)
