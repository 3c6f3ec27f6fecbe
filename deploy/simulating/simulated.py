"""A simulation, and what is told of it: the figures of `baton bench serve`, and what each instance and link did."""

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from deploy.bench.metrics import Figures
from deploy.simulator.cluster import SimCluster
from deploy.simulator.columns import Columns
from deploy.simulator.report import InstanceUse, LinkUse, Report
from deploy.simulator.simulate import simulate
from deploy.workload.request import WorkloadRequest

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """`attainment_of`: each SLO by itself. `errors`: of requests that failed. `num_cut_short`: see `Columns`.

    `wall_s`: what the simulation took.
    """

    figures: Figures
    attainment_of: Mapping[str, float]
    report: Report
    errors: Mapping[int, str]
    num_cut_short: int
    wall_s: float

    def as_json(self) -> dict[str, Any]:
        return {
            **self.figures,
            "slo_attainment_of": self.attainment_of,
            "instances": [self._use(use) for use in self.report.instances],
            "links": [self._use(use) for use in self.report.links],
            "handovers": self.report.handovers,
            "cut_short": self.num_cut_short,
            "errors": {text: count for text, count, _ in alike(self.errors)},
            "simulation": {
                "wall_s": self.wall_s,
                "num_events": self.report.num_events,
                "requests_per_s": self.report.num_requests / self.wall_s,
            },
        }

    def _use(self, use: InstanceUse | LinkUse) -> dict[str, Any]:
        return {**asdict(use), "busy_share": self.share_of(use)}

    def share_of(self, use: InstanceUse | LinkUse) -> float:
        """Of the simulated time, that it was busy."""
        return use.busy_s / self.report.duration_s if self.report.duration_s else 0.0


def run(
    cluster: SimCluster,
    requests: Sequence[WorkloadRequest],
    slos_ms: Mapping[str, float],
    *,
    sample_s: float | None = None,
    on_progress: Callable[[int, float], None] | None = None,
) -> Simulated:
    """`sample_s`: what a timeline is drawn from is noted so often."""
    columns = Columns()
    start = time.perf_counter()
    report = simulate(cluster, requests, recorder=columns, sample_s=sample_s, on_progress=on_progress)
    return Simulated(
        figures=columns.figures(report.duration_s, slos_ms),
        attainment_of={name: columns.attainment({name: limit}) for name, limit in slos_ms.items()},
        report=report,
        errors=columns.errors,
        num_cut_short=columns.num_cut_short,
        wall_s=time.perf_counter() - start,
    )


def alike(errors: Mapping[int, str]) -> list[tuple[str, int, int]]:
    """What failed, how many, and the number of the first, from 1 on; the most frequent first.

    Those that differ in numbers only are one, told in the words of the first of them.
    """
    first: dict[str, int] = {}
    for number in sorted(errors):
        first.setdefault(_NUMBER.sub("0", errors[number]), number)
    counts = Counter(_NUMBER.sub("0", text) for text in errors.values())
    return [(errors[first[form]], count, first[form] + 1) for form, count in counts.most_common()]
