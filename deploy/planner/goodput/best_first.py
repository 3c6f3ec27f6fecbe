"""The search: those that promise most first; whoever cannot exceed the best that was found is not looked at."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deploy.planner.goodput.bound import transfer_bound
from deploy.planner.goodput.candidates import Candidate
from deploy.planner.goodput.estimate import RatesOf
from deploy.planner.goodput.evaluation import Answer, Ask, Evaluate
from deploy.planner.goodput.layout import Layout

RESOLUTION = 0.02
"""Two goodputs that are closer are the same to a simulation of this length."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tried:
    """`goodput`: requests a second; None where it did not exceed `above`, at which it had this attainment."""

    candidate: Candidate
    layout: Layout
    bound: float
    answer: Answer
    above: float

    @property
    def per_gpu(self) -> float:
        """0 where only that is known, that it was no better."""
        return (self.answer.rate or 0.0) / self.candidate.unit.num_gpus

    @property
    def bound_per_gpu(self) -> float:
        return self.bound / self.candidate.unit.num_gpus

    @property
    def rank(self) -> tuple[float, float, float]:
        """The greater, the nearer it came to being the best."""
        return self.per_gpu, self.answer.attainment.both, self.candidate.estimate_per_gpu


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """`tried`: the best first. `num_pruned` could not be better than `pruned_bound`; `num_left` were not looked at for
    want of time, and cannot be better than `left_bound`. Both per GPU. `num_too_small`: their bound is
    below the rate that is asked for."""

    tried: tuple[Tried, ...]
    num_pruned: int
    pruned_bound: float
    num_left: int
    left_bound: float
    num_too_small: int = 0

    @property
    def best(self) -> Tried | None:
        return self.tried[0] if self.tried and self.tried[0].answer.rate else None


def find_best(
    candidates: Sequence[Candidate],
    lay_out: Callable[[Candidate], Layout | None],
    rates_of: RatesOf,
    request_bytes: float,
    evaluate: Evaluate,
    *,
    max_asks: int,
    at_a_time: int,
) -> Outcome:
    """Most goodput per GPU. `at_a_time`: so many are asked about at once."""
    waiting = sorted(candidates, key=lambda each: (-each.estimate_per_gpu, -each.bound_per_gpu, each.unit))
    tried: list[Tried] = []
    best, num_pruned, pruned_bound = 0.0, 0, 0.0
    while waiting and len(tried) < max_asks:
        batch: list[tuple[Candidate, Layout, float]] = []
        while waiting and len(batch) < min(at_a_time, max_asks - len(tried)):
            candidate = waiting.pop(0)
            bound, layout = candidate.bound, None
            if bound > best * (1.0 + RESOLUTION) * candidate.unit.num_gpus:
                layout = lay_out(candidate)
                if layout is None:
                    continue
                bound = min(bound, transfer_bound(layout, rates_of, request_bytes))
            if layout is None or bound <= best * (1.0 + RESOLUTION) * candidate.unit.num_gpus:
                num_pruned, pruned_bound = num_pruned + 1, max(pruned_bound, bound / candidate.unit.num_gpus)
                continue
            batch.append((candidate, layout, bound))
        aboves = [best * (1.0 + RESOLUTION) * candidate.unit.num_gpus for candidate, *_ in batch]
        asks = [
            Ask(layout=layout, above=above, at_most=bound, expected=candidate.estimate or None, is_rough=True)
            for (candidate, layout, bound), above in zip(batch, aboves, strict=True)
        ]
        answers = evaluate(asks) if asks else []
        for (candidate, layout, bound), answer, above in zip(batch, answers, aboves, strict=True):
            tried.append(Tried(candidate=candidate, layout=layout, bound=bound, answer=answer, above=above))
            best = max(best, min(tried[-1].per_gpu, tried[-1].bound_per_gpu))  # of what can be kept up
    over = [each for each in waiting if each.bound_per_gpu > best * (1.0 + RESOLUTION)]
    under = [each.bound_per_gpu for each in waiting if each.bound_per_gpu <= best * (1.0 + RESOLUTION)]
    return Outcome(
        tried=tuple(sorted(tried, key=lambda each: -each.per_gpu)),
        num_pruned=num_pruned + len(under),
        pruned_bound=max([pruned_bound, *under]),
        num_left=len(over),
        left_bound=max((each.bound_per_gpu for each in over), default=0.0),
    )
