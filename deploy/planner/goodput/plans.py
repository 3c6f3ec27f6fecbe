"""What comes of the planning: the best deployment, those that lost to it, and why."""

from dataclasses import dataclass

from deploy.planner.goodput.estimate import Attainment
from deploy.planner.goodput.layout import Layout
from deploy.planner.goodput.unit import Copies, Unit


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """`goodput`: requests a second within the SLOs, of all of it. `attainment`: at that rate.

    `num_checked_gpus`: what was simulated together; less than all of it for a large plan, of which a part stands for
    the whole. `parts` is what it is made of: a unit for each class of nodes, so many times.
    `standard_error`: of the goodput, from so many seeds. `is_beyond`: no trial told where it ends: see `Answer`.
    """

    layout: Layout
    parts: tuple[Copies, ...]
    goodput: float
    attainment: Attainment
    num_checked_gpus: int
    standard_error: float = 0.0
    num_seeds: int = 1
    is_beyond: bool = False

    @property
    def whole(self) -> Unit:
        return self.layout.unit

    @property
    def num_gpus(self) -> int:
        return self.whole.num_gpus

    @property
    def per_gpu(self) -> float:
        return self.goodput / self.num_gpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """`per_gpu`: its goodput, or what it did not reach."""

    unit: Unit
    per_gpu: float
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A unit that was tried; `per_gpu` is 0 where it only was not better than the best at that time."""

    unit: Unit
    per_gpu: float
    bound_per_gpu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """Of the search: candidates, simulated ones, those that a bound left out and what none of them could exceed.

    `left_bound`: of those that were left out for want of time; 0: none. `num_too_small`: by their bound they do not
    serve the rate that is asked for. `plan_bound`: what no plan at all can exceed by computing and memory. All per GPU.
    """

    num_candidates: int
    num_tried: int
    num_pruned: int
    pruned_bound: float
    num_left: int
    left_bound: float
    num_too_small: int
    plan_bound: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plans:
    """`mixed` and `disaggregated`: the best of each sort. `best` is one. `runnable`: the best that `baton up` can run.

    What is None has its reason in `why_not_...`, which is "" for the others.
    """

    best: Plan
    mixed: Plan | None
    disaggregated: Plan | None
    lost: tuple[Lost, ...]
    scored: tuple[Scored, ...]
    effort: Effort
    why_not_mixed: str = ""
    why_not_disaggregated: str = ""
    runnable: Plan | None = None
    why_not_runnable: str = ""
