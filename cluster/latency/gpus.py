"""What is known of GPUs beside their kernels: memory, and the links between them."""

from dataclasses import dataclass, replace

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
    """`kernels`: whose were timed. `engine`: what an engine adds to them."""

    name: str
    kernels: str
    memory_bytes: int
    memory_bytes_per_s: float
    in_node: Wire
    between_nodes: Wire
    engine: EngineCost


# As Llama-2-70B at TP2, TP4 and TP8 took end to end in a Python engine of 2023 (Splitwise, MIT), and OPT-13B at TP1
# (DistServe, Apache-2.0): `python -m deploy.profiling.residuals`.
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

_A100 = Gpu(
    name="a100",
    kernels="a100",
    memory_bytes=80 << 30,
    memory_bytes_per_s=2.039e12,
    in_node=Wire(alpha_s=8e-6, beta_bytes_per_s=228e9),
    between_nodes=Wire(alpha_s=24e-6, beta_bytes_per_s=7.8e9),
    engine=_A100_ENGINE,
)
_H100 = Gpu(
    name="h100",
    kernels="h100",
    memory_bytes=80 << 30,
    memory_bytes_per_s=3.35e12,
    in_node=Wire(alpha_s=5e-6, beta_bytes_per_s=348e9),
    between_nodes=Wire(alpha_s=17e-6, beta_bytes_per_s=36e9),
    engine=_H100_ENGINE,
)
# Its kernels were timed; engine and wires are taken to be those of the H100.
_H200 = replace(_H100, name="h200", kernels="h200", memory_bytes=141_000_000_000, memory_bytes_per_s=4.8e12)


def _with_graphs(gpu: Gpu) -> Gpu:
    """The same, where no host is waited for: its kernels as they are when the GPU is warm."""
    return replace(gpu, name=f"{gpu.name}-graphs", engine=EngineCost(kernels=gpu.engine.kernels))


_GPUS = {gpu.name: gpu for each in (_A100, _H100, _H200) for gpu in (each, _with_graphs(each))}

GPU_NAMES = tuple(_GPUS)


def gpu_named(name: str) -> Gpu:
    """`NAME-graphs`: with an engine that launches steps as CUDA graphs. ValueError lists those there are."""
    return find_known("GPU", name, _GPUS)
