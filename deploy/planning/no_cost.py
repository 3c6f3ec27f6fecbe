"""A latency model of steps that take next to nothing, for the phase that does not count."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.latency.step_shape import StepShape

_STEP_S = 1e-7


@dataclass(frozen=True, slots=True)
class NoCost:
    num_stages: int = 1

    def stages_s(self, shape: StepShape) -> tuple[float, ...]:
        return (_STEP_S,)

    def decode_steps_s(self, num_decodes: int, decode_context: int, num_steps: int) -> NDArray[np.float64]:
        return np.full(num_steps, _STEP_S)
