"""The same requests at several rates: how many of them are still served within their SLOs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from deploy.bench.traffic import TrafficOptions, pace
from deploy.errors import InputError
from deploy.simulating.simulated import run
from deploy.simulator.cluster import SimCluster
from deploy.workload.request import WorkloadRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class AtRate:
    """`attainment`: the share of requests that met all SLOs; `attainment_of`: each SLO by itself."""

    rate: float
    attainment: float
    request_goodput: float
    attainment_of: Mapping[str, float] = field(default_factory=dict)


def parse_rates(text: str) -> list[float]:
    """Numbers above 0 with commas between them, in order; InputError."""
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--rates {text!r} should be requests a second, such as 1,2,4") from None
    if not all(0.0 < rate < float("inf") for rate in rates):
        raise InputError(f"--rates {text!r}: each should be above 0")
    return sorted(set(rates))


def at_rate(
    cluster: SimCluster,
    requests: list[WorkloadRequest],
    options: TrafficOptions,
    rate: float,
    slos_ms: Mapping[str, float],
    on_progress: Callable[[int, float], None] | None = None,
) -> AtRate:
    """The same requests, faster or slower."""
    paced = pace(requests, replace(options, rate=rate), is_closed_loop=False)
    found = run(cluster, paced, slos_ms, on_progress=on_progress)
    return AtRate(
        rate=rate,
        attainment=float(found.figures["slo_attainment"] or 0.0),
        request_goodput=float(found.figures["request_goodput"] or 0.0),
        attainment_of=found.attainment_of,
    )
