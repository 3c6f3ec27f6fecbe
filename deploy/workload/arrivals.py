"""When requests come: arrival processes for files without times, and other speeds for files with them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from deploy.workload.request import WorkloadRequest


def draw_arrivals(
    requests: Sequence[WorkloadRequest], *, rate: float, burstiness: float = 1.0, seed: int = 0
) -> list[WorkloadRequest]:
    """`rate` requests a second with Gamma-distributed gaps, from 0 s on.

    `burstiness` is the Gamma's shape, as in `vllm bench serve`: 1 is Poisson, less is burstier (CV = 1/sqrt(shape)).
    """
    generator = np.random.default_rng(seed)
    gaps_s = generator.gamma(burstiness, 1 / (rate * burstiness), len(requests))
    times_s = np.cumsum(gaps_s) - gaps_s[0]
    return [replace(request, arrival_s=float(time)) for request, time in zip(requests, times_s, strict=True)]


def speed_up(requests: Sequence[WorkloadRequest], factor: float) -> list[WorkloadRequest]:
    """The same pattern in 1/`factor` of the time."""
    return [replace(request, arrival_s=(request.arrival_s or 0.0) / factor) for request in requests]


def mean_rate(requests: Sequence[WorkloadRequest]) -> float | None:
    """Requests a second between the first arrival and the last; None where there is no such time."""
    last_s = requests[-1].arrival_s
    return (len(requests) - 1) / last_s if last_s else None
