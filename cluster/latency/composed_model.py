"""A latency model put together from kernels: layers that are all alike, in one or more stages.

layer   linear, elementwise, all-reduce by tokens + attention by squares of prompts + attention by decoding context
stage   the slower of: layers x layer, and the output layer in the last; layers x what the host takes for one
        + in all but the last: activations to the next stage
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.latency.engine_cost import EngineCost
from cluster.latency.kernel_tables import KernelTables
from cluster.latency.piecewise import PiecewiseLinear
from cluster.latency.step_shape import StepShape


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposedParts:
    """By tokens, but `prompts` by their squares and `output` by sequences. `send`: None without a next stage.

    `num_kv_heads`: of a rank, counted in heads of the size that was timed.
    """

    tokens: PiecewiseLinear
    prompts: PiecewiseLinear
    output: PiecewiseLinear
    send: PiecewiseLinear | None
    num_kv_heads: float


class ComposedModel:
    """A mixed step computes the tokens of prompts and decodes together, and the attention of either by itself."""

    def __init__(
        self, tables: KernelTables, parts: ComposedParts, engine: EngineCost, num_layers: int, num_stages: int
    ) -> None:
        self._tables = tables
        self._parts = parts
        self._engine = engine
        self._num_layers = num_layers // num_stages
        self._num_stages = num_stages
        self._decodes: dict[int, PiecewiseLinear] = {}

    @property
    def num_stages(self) -> int:
        return self._num_stages

    def stages_s(self, shape: StepShape) -> tuple[float, ...]:
        parts, engine, num_decodes = self._parts, self._engine, shape.num_decodes
        num_tokens = shape.num_prefill_tokens + num_decodes
        layer_s = parts.tokens(num_tokens)
        host_s = engine.decode_layer_s
        if shape.num_prefill_tokens:
            layer_s += parts.prompts(shape.prefill_squares)
            host_s = engine.prefill_layer_s
        if num_decodes:
            layer_s += self._decode(num_decodes)(shape.decode_context / num_decodes)
        host_s = (host_s + num_decodes * engine.sequence_layer_s) * self._num_layers
        stage_s = layer_s * self._num_layers
        last_s = max(stage_s + parts.output(num_decodes or 1), host_s)
        if parts.send is None:
            return (last_s,)
        return (max(stage_s, host_s) + parts.send(num_tokens),) * (self._num_stages - 1) + (last_s,)

    def decode_steps_s(self, num_decodes: int, decode_context: int, num_steps: int) -> NDArray[np.float64]:
        parts, engine = self._parts, self._engine
        contexts = (decode_context + num_decodes * np.arange(num_steps)) / num_decodes
        layer_s = parts.tokens(num_decodes) + self._decode(num_decodes).many(contexts)
        host_s = (engine.decode_layer_s + num_decodes * engine.sequence_layer_s) * self._num_layers
        stage_s = layer_s * self._num_layers
        last_s = np.maximum(stage_s + parts.output(num_decodes), host_s)
        if parts.send is None:
            return last_s
        other_s = np.maximum(stage_s, host_s) + parts.send(num_decodes)
        step_s = other_s
        for _ in range(self._num_stages - 2):
            step_s = step_s + other_s
        return step_s + last_s

    def _decode(self, num_decodes: int) -> PiecewiseLinear:
        """By the context of each; made once for each number of sequences."""
        found = self._decodes.get(num_decodes)
        if found is None:
            times = self._tables.decode_attention_s(num_decodes * self._parts.num_kv_heads)
            found = PiecewiseLinear(self._tables.contexts, times * self._engine.kernels)
            self._decodes[num_decodes] = found
        return found
