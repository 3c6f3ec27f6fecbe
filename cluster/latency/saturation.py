"""The number of tokens in a step beyond which prompts are computed no faster: L_m (DistServe, 3.1)."""

from cluster.latency.latency_model import LatencyModel
from cluster.latency.step_shape import StepShape

MEASURED_TOKENS = 512
"""What an instance tries at most when it measures this at its start: see `cluster.model.saturation`."""

_SATURATED = 0.9


def saturation_tokens(model: LatencyModel, most: int) -> int:
    """The least power of two, up to `most`, at which a prompt is computed at 0.9 of the best speed that any has."""
    sizes = [1 << power for power in range(4, most.bit_length())] or [most]
    speeds = [
        size / sum(model.stages_s(StepShape(num_prefill_tokens=size, prefill_squares=float(size * size))))
        for size in sizes
    ]
    return next(size for size, speed in zip(sizes, speeds, strict=True) if speed >= _SATURATED * max(speeds))


def measured_saturation(model: LatencyModel, max_model_len: int) -> int:
    """As an instance that computes so fast would measure it."""
    return saturation_tokens(model, min(MEASURED_TOKENS, max_model_len))
