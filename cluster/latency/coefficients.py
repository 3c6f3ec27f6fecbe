"""Latency models of a few coefficients (DistServe, arXiv:2401.09670, appendix A).

prefill  a + b Σ len + c Σ len²            Σ (end² - start²) where prompts come in chunks
decode   a + b Σ context + c batch         a set for small batches and one for large ones
mixed    a + what either part adds         a: the greater of the two
"""

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cluster.latency.step_shape import StepShape


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillCost:
    fixed_s: float
    s_per_token: float
    s_per_square: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeCost:
    """For batches of `from_batch` sequences and more, up to where the next set begins."""

    from_batch: int = 0
    fixed_s: float
    s_per_context_token: float
    s_per_sequence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """What a step costs beside the model's own work: in every stage that computes prompts, and in the first."""

    prefill_s: float = 0.0
    call_s: float = 0.0
    call_s_per_token: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CoefficientModel:
    """A step's time is divided evenly among the stages. `decode` begins with `from_batch` 0, and rises."""

    prefill: PrefillCost
    decode: tuple[DecodeCost, ...]
    num_stages: int = 1
    stage: StageCost = StageCost()
    _from_batch: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        from_batch = tuple(cost.from_batch for cost in self.decode)
        if from_batch[:1] != (0,) or any(low >= high for low, high in pairwise(from_batch)):
            raise ValueError(f"decode begins at batches of {from_batch}: should begin at 0, and rise")
        object.__setattr__(self, "_from_batch", from_batch)

    def stages_s(self, shape: StepShape) -> tuple[float, ...]:
        stage_s = self._compute_s(shape) / self.num_stages
        num_tokens = shape.decode_context - shape.num_decodes
        if shape.num_prefill_tokens:
            stage_s += self.stage.prefill_s
            num_tokens += shape.num_prefill_tokens
        first_s = stage_s + (self.stage.call_s + self.stage.call_s_per_token * num_tokens)
        return (first_s,) + (stage_s,) * (self.num_stages - 1)

    def decode_steps_s(self, num_decodes: int, decode_context: int, num_steps: int) -> NDArray[np.float64]:
        context = decode_context + num_decodes * np.arange(num_steps)
        cost = self._decode_cost(num_decodes)
        stage_s = (
            cost.fixed_s + cost.s_per_sequence * num_decodes + cost.s_per_context_token * context
        ) / self.num_stages
        step_s = stage_s + (self.stage.call_s + self.stage.call_s_per_token * (context - num_decodes))
        for _ in range(self.num_stages - 1):
            step_s = step_s + stage_s
        return step_s

    def _compute_s(self, shape: StepShape) -> float:
        prefill = self.prefill
        prefill_s = prefill.s_per_token * shape.num_prefill_tokens + prefill.s_per_square * shape.prefill_squares
        if not shape.num_decodes:
            return prefill.fixed_s + prefill_s
        cost = self._decode_cost(shape.num_decodes)
        if not shape.num_prefill_tokens:  # in the order of `decode_steps_s`
            decode_s = cost.fixed_s + cost.s_per_sequence * shape.num_decodes
            return decode_s + cost.s_per_context_token * shape.decode_context
        decode_s = cost.s_per_sequence * shape.num_decodes + cost.s_per_context_token * shape.decode_context
        return max(prefill.fixed_s, cost.fixed_s) + prefill_s + decode_s

    def _decode_cost(self, num_decodes: int) -> DecodeCost:
        return self.decode[bisect_right(self._from_batch, num_decodes) - 1]
