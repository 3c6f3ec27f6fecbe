"""DistServe's placement (OSDI'24, algorithms 1 and 2), as the paper states them: the limits of our own search.

They know links only as good (1: the phases are planned apart) or not there (2: both phases on one node). An instance
stays on one node here: the paper's limit of nodes per instance is 1. Both decide by goodput per GPU.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

from cluster.latency.hardware import Parallelism

PhaseGoodput = Callable[[Parallelism], float]
PairGoodput = Callable[[Parallelism, Parallelism], float]
"""Requests a second within the SLOs, of one instance or of one pair: what simulation says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DistServePlan:
    prefill: Parallelism
    decode: Parallelism
    num_prefill: int
    num_decode: int

    @property
    def num_gpus(self) -> int:
        return self.num_prefill * self.prefill.num_gpus + self.num_decode * self.decode.num_gpus


def high_affinity(
    parallelisms: Sequence[Parallelism], simu_prefill: PhaseGoodput, simu_decode: PhaseGoodput, rate: float
) -> DistServePlan | None:
    """Algorithm 1: the best parallelism of each phase by itself, as often as the rate needs. None: one has none."""
    best = []
    for simulate in (simu_prefill, simu_decode):
        goodputs = {parallelism: simulate(parallelism) for parallelism in parallelisms}
        parallelism = max(goodputs, key=lambda each: goodputs[each] / each.num_gpus)
        if goodputs[parallelism] <= 0.0:
            return None
        best.append((parallelism, ceil(rate / goodputs[parallelism])))
    (prefill, num_prefill), (decode, num_decode) = best
    return DistServePlan(prefill=prefill, decode=decode, num_prefill=num_prefill, num_decode=num_decode)


def low_affinity(
    parallelisms: Sequence[Parallelism], gpus_per_node: int, simulate: PairGoodput, rate: float
) -> DistServePlan | None:
    """Algorithm 2: the best pair of one prefill and one decode instance that fits on one node, as often as needed.

    The paper cuts an instance into stages first, so that the same stages of both phases share a node; with a limit of
    one node per instance that is the pairs which fit on one.
    """
    pairs = [
        (prefill, decode)
        for prefill in parallelisms
        for decode in parallelisms
        if prefill.num_gpus + decode.num_gpus <= gpus_per_node
    ]
    goodputs = {pair: simulate(*pair) for pair in pairs}
    best = max(goodputs, key=lambda pair: goodputs[pair] / (pair[0].num_gpus + pair[1].num_gpus), default=None)
    if best is None or goodputs[best] <= 0.0:
        return None
    copies = ceil(rate / goodputs[best])
    return DistServePlan(prefill=best[0], decode=best[1], num_prefill=copies, num_decode=copies)


def fill_gpus(plan_for: Callable[[float], DistServePlan | None], num_gpus: int) -> DistServePlan | None:
    """The plan for the highest rate that so many GPUs are enough for. None: they are not enough for any."""
    low, high = 0.0, 1e-3
    best: DistServePlan | None = None
    while (plan := plan_for(high)) is not None and plan.num_gpus <= num_gpus and high < 1e6:
        best, low, high = plan, high, 2.0 * high
    for _ in range(40):
        middle = (low + high) / 2
        plan = plan_for(middle)
        if plan is not None and plan.num_gpus <= num_gpus:
            best, low = plan, middle
        else:
            high = middle
    return best
