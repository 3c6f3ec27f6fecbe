"""The traffic of a benchmark: a trace, at the rate asked for, in lengths that the model takes."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

from cluster.pb import baton_pb2
from deploy.errors import InputError
from deploy.workload.arrivals import draw_arrivals, mean_rate, speed_up
from deploy.workload.prompts import PromptMaker
from deploy.workload.read import read_workload
from deploy.workload.request import WorkloadRequest
from deploy.workload.scaling import fit_to_context


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficOptions:
    """`rate` in requests a second, infinite for all at once; None keeps the trace's own times, `speedup` faster."""

    trace: Path
    num_requests: int | None = None
    rate: float | None = None
    burstiness: float = 1.0
    speedup: float = 1.0
    max_len: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises InputError."""
        for name in ("rate", "burstiness", "speedup"):
            if (value := getattr(self, name)) is not None and not value > 0.0:
                raise InputError(f"--{name} {value:g} should be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    requests: list[WorkloadRequest]
    prompts: list[list[int]]
    length_factor: float
    rate: float | None


def read_requests(options: TrafficOptions, *, is_closed_loop: bool) -> list[WorkloadRequest]:
    """In the trace's own lengths. `is_closed_loop`: a limit on concurrency paces them, so they need no times."""
    return pace(read_workload(options.trace, options.num_requests), options, is_closed_loop=is_closed_loop)


def make_traffic(requests: list[WorkloadRequest], options: TrafficOptions, model: baton_pb2.ModelInfo) -> Traffic:
    """Lengths and prompts that the model takes."""
    requests, length_factor = fit_to_context(requests, options.max_len or model.max_model_len)
    maker = PromptMaker(model.vocab_size, model.eos_token_ids, options.seed)
    return Traffic(
        requests=requests,
        prompts=maker.make(requests),
        length_factor=length_factor,
        rate=mean_rate(requests),
    )


def pace(requests: list[WorkloadRequest], options: TrafficOptions, *, is_closed_loop: bool) -> list[WorkloadRequest]:
    """At the rate asked for: drawn, or the trace's own times at another speed. InputError where neither is there."""
    if options.rate == math.inf:
        return [replace(request, arrival_s=0.0) for request in requests]
    if requests[0].arrival_s is not None:
        own_rate = mean_rate(requests)
        factor = options.rate / own_rate if options.rate and own_rate else options.speedup
        return speed_up(requests, factor)
    if options.rate is not None:
        return draw_arrivals(requests, rate=options.rate, burstiness=options.burstiness, seed=options.seed)
    if is_closed_loop:
        return [replace(request, arrival_s=0.0) for request in requests]
    raise InputError(f"{options.trace} holds no arrival times; give --rate or --concurrency")
