"""How long the steps of one instance take."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cluster.latency.step_shape import StepShape


class LatencyModel(Protocol):
    @property
    def num_stages(self) -> int:
        """Pipeline stages; 1 without pipeline parallelism."""
        ...

    def stages_s(self, shape: StepShape) -> tuple[float, ...]:
        """Seconds of a step in each stage, in order; the way to the next stage belongs to the stage before it."""
        ...

    def decode_steps_s(self, num_decodes: int, decode_context: int, num_steps: int) -> NDArray[np.float64]:
        """Seconds of each of `num_steps` steps, at least one: of the same `num_decodes`, from `decode_context` on.

        With one stage bit for bit what `stages_s` says for contexts that grow by `num_decodes` a step; with several,
        what their stages add up to, first to last.
        """
        ...
