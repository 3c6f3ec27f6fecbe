"""Lengths of another model's traffic, made to fit this model's context."""

from collections.abc import Sequence
from dataclasses import replace

from deploy.workload.request import WorkloadRequest


def fit_to_context(requests: Sequence[WorkloadRequest], max_len: int) -> tuple[list[WorkloadRequest], float]:
    """All lengths times one factor, so that the longest request has `max_len` tokens; and that factor, 1 if all fit.

    One factor for all keeps the shape of the trace: what was twice as long stays so, and shared prefixes stay shared.
    """
    longest = max(request.num_prompt_tokens + request.num_output_tokens for request in requests)
    if longest <= max_len:
        return list(requests), 1.0
    factor = max_len / longest
    return [_scale(request, factor) for request in requests], factor


def _scale(request: WorkloadRequest, factor: float) -> WorkloadRequest:
    return replace(
        request,
        num_prompt_tokens=max(1, int(request.num_prompt_tokens * factor)),
        num_output_tokens=max(1, int(request.num_output_tokens * factor)),
        hash_block_tokens=max(1, round(request.hash_block_tokens * factor)),
    )
