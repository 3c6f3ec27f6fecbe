"""What an engine adds to the time of its kernels."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCost:
    """A step takes as long as the slower of two: the GPU with its kernels, and the host that launches them.

    `kernels`: a kernel takes so many times as long as where it was timed alone, on a cool GPU. `prefill_layer_s` and
    `decode_layer_s`: the host's part of a layer of a step with prompts and of one without, and `sequence_layer_s` what
    each decoding sequence adds. `large_all_reduce`: all-reduces of more than `LARGE_STEP_TOKENS` take so many times
    as long for what is beyond.
    """

    kernels: float = 1.0
    prefill_layer_s: float = 0.0
    decode_layer_s: float = 0.0
    sequence_layer_s: float = 0.0
    large_all_reduce: float = 1.0


LARGE_STEP_TOKENS = 2048

KERNELS_ONLY = EngineCost()
"""The best there could be: CUDA graphs without gaps, and every kernel as fast as alone."""
