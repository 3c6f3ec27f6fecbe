"""Any dense model on a GPU whose kernels were timed, at any tensor parallelism within a node."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from cluster.latency.composed_model import ComposedModel, ComposedParts
from cluster.latency.engine_cost import LARGE_STEP_TOKENS, EngineCost
from cluster.latency.gpus import NUM_GPUS_A_NODE, Gpu
from cluster.latency.hardware import DoesNotFit, Parallelism, UnknownParallelism
from cluster.latency.kernel_tables import TIMED_HEAD_DIM, KernelTables, Times, kernel_tables
from cluster.latency.piecewise import PiecewiseLinear
from cluster.latency.shapes import ELEMENT_BYTES, ModelShape

RESERVE = 0.1
"""Of a GPU's memory: for activations, CUDA's own and fragments. vLLM leaves as much by default."""

# Norms, rotation, activation, residuals: memory-bound, at what such kernels reach of the bandwidth; each is launched.
_ELEMENTWISE_EFFICIENCY = 0.8
_ELEMENTWISE_KERNELS = 6
_KERNEL_S = 2.5e-6


@dataclass(frozen=True, slots=True)
class ComposedHardware:
    """`engine` None: the one that the GPU comes with."""

    shape: ModelShape
    gpu: Gpu
    engine: EngineCost | None = None

    @property
    def name(self) -> str:
        return f"{self.gpu.name}/{self.shape.name}"

    @property
    def kv_bytes_per_token(self) -> float:
        return float(self.shape.num_layers * self.shape.kv_bytes_per_token_and_layer)

    def parallelisms(self) -> list[Parallelism]:
        """Ranks share heads and the MLP evenly, KV heads too or have one each; stages share the layers evenly."""
        ranks = [tp for tp in range(1, NUM_GPUS_A_NODE + 1) if self._can_share(tp)]
        stages = [pp for pp in range(1, NUM_GPUS_A_NODE + 1) if self.shape.num_layers % pp == 0]
        return [Parallelism(tp, pp) for tp in ranks for pp in stages]

    def model(self, parallelism: Parallelism) -> ComposedModel:
        self._check(parallelism)
        return _compose(self.shape, self.gpu, self.engine or self.gpu.engine, parallelism)

    def num_kv_tokens(self, parallelism: Parallelism) -> int:
        """What the fullest GPU has room for: its memory but for `RESERVE`, less its part of the weights."""
        self._check(parallelism)
        shape, tp, pp = self.shape, parallelism.tp, parallelism.pp
        # The first stage holds the embeddings, the last the output layer; one GPU may hold both.
        tables = 1 if pp > 1 or shape.tie_word_embeddings else 2
        layers = shape.num_layers // pp
        weights = ELEMENT_BYTES * (layers * shape.layer_parameters + tables * shape.embedding_parameters) / tp
        token_bytes = layers * shape.kv_bytes_per_token_and_layer * max(1 / tp, 1 / shape.num_kv_heads)
        room = self.gpu.memory_bytes * (1 - RESERVE)
        if room - weights < token_bytes:
            raise DoesNotFit(
                f"{self.name} at {parallelism}: weights of {weights / 1e9:.1f} GB a GPU leave nothing for KV of its "
                f"{room / 1e9:.1f} GB ({self.gpu.memory_bytes / 1e9:.1f} GB less {RESERVE:.0%}): "
                f"{(weights + token_bytes - room) / 1e9:.1f} GB too many"
            )
        return int((room - weights) / token_bytes)

    def _can_share(self, tp: int) -> bool:
        shape = self.shape
        kv_heads = shape.num_kv_heads % tp == 0 or tp % shape.num_kv_heads == 0
        return shape.num_heads % tp == 0 and shape.intermediate_size % tp == 0 and kv_heads

    def _check(self, parallelism: Parallelism) -> None:
        known = self.parallelisms()
        if parallelism not in known:
            listed = ", ".join(map(str, known))
            raise UnknownParallelism(f"{self.name}: cannot be put together for {parallelism}; known are {listed}")


@cache
def _compose(shape: ModelShape, gpu: Gpu, engine: EngineCost, parallelism: Parallelism) -> ComposedModel:
    tables, tp = kernel_tables(gpu.kernels), parallelism.tp
    tokens = np.array(tables.tokens, dtype=np.float64)
    activations = tokens * (shape.hidden_size * ELEMENT_BYTES)
    layer_s = _linear_s(shape, tables, tp) + _elementwise_s(shape, gpu, tp, tokens)
    layer_s += 2 * _all_reduce_s(tables, tp, tokens, activations, engine.large_all_reduce)
    heads = shape.num_heads // tp * shape.head_dim / TIMED_HEAD_DIM
    kv_heads = max(1, shape.num_kv_heads // tp) * shape.head_dim / TIMED_HEAD_DIM
    parts = ComposedParts(
        tokens=PiecewiseLinear(tables.tokens, layer_s * engine.kernels),
        prompts=PiecewiseLinear(tables.squares, tables.prompt_attention_s(heads) * engine.kernels),
        output=PiecewiseLinear(
            tables.tokens, tables.linear_s(shape.hidden_size, shape.vocab_size // tp) * engine.kernels
        ),
        send=PiecewiseLinear(tables.tokens, _send_s(gpu, parallelism, activations)) if parallelism.pp > 1 else None,
        num_kv_heads=kv_heads,
    )
    return ComposedModel(tables, parts, engine, shape.num_layers, parallelism.pp)


def _linear_s(shape: ModelShape, tables: KernelTables, tp: int) -> Times:
    """Of a layer: queries with keys and values, attention's output, up (with the gate beside it), down."""
    queries = shape.num_heads // tp * shape.head_dim
    keys = max(1, shape.num_kv_heads // tp) * shape.head_dim
    inner = shape.intermediate_size // tp
    return (
        tables.linear_s(shape.hidden_size, queries + 2 * keys)
        + tables.linear_s(queries, shape.hidden_size)
        + tables.linear_s(shape.hidden_size, inner * (shape.num_mlp_matrices - 1))
        + tables.linear_s(inner, shape.hidden_size)
    )


def _elementwise_s(shape: ModelShape, gpu: Gpu, tp: int, tokens: Times) -> Times:
    """Two norms with residuals read and write four rows each, rotation and activation what they work on."""
    keys = max(1, shape.num_kv_heads // tp)
    rotated = 2 * (shape.num_heads // tp + 2 * keys) * shape.head_dim
    elements = 8 * shape.hidden_size + rotated + shape.num_mlp_matrices * (shape.intermediate_size // tp)
    bandwidth = gpu.memory_bytes_per_s * _ELEMENTWISE_EFFICIENCY
    return tokens * (elements * ELEMENT_BYTES / bandwidth) + _ELEMENTWISE_KERNELS * _KERNEL_S


def _all_reduce_s(tables: KernelTables, tp: int, tokens: Times, activations: Times, large: float) -> Times:
    times = tables.all_reduce_s(tp, activations)
    limit = np.interp(LARGE_STEP_TOKENS, tokens, times)
    return times + (large - 1.0) * np.maximum(times - limit, 0.0)


def _send_s(gpu: Gpu, parallelism: Parallelism, activations: Times) -> Times:
    """To the next stage, each rank to its own: over the network where the instance is more than a node."""
    wire = gpu.in_node if parallelism.num_gpus <= NUM_GPUS_A_NODE else gpu.between_nodes
    return wire.alpha_s + activations / wire.beta_bytes_per_s
