"""The fewest GPUs that serve a rate: all units of so many GPUs, then of one more, until one meets the SLOs."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice

from deploy.planner.goodput.best_first import Outcome, Tried
from deploy.planner.goodput.bound import transfer_bound
from deploy.planner.goodput.candidates import Candidate
from deploy.planner.goodput.estimate import RatesOf
from deploy.planner.goodput.evaluation import Ask, Evaluate
from deploy.planner.goodput.layout import Layout

_PER_SIZE = 12
"""So many of one size are tried, those that promise most: the others are left for want of time."""


def find_fewest(
    candidates: Sequence[Candidate],
    lay_out: Callable[[Candidate], Layout | None],
    rates_of: RatesOf,
    request_bytes: float,
    evaluate: Evaluate,
    rate: float,
    *,
    at_a_time: int,
) -> Outcome:
    """Its best is one with the fewest GPUs of those that serve the rate, and None where none does."""
    able = sorted(
        (each for each in candidates if each.bound >= rate),
        key=lambda each: (each.unit.num_gpus, -each.estimate, each.unit),
    )
    tried: list[Tried] = []
    left: list[Candidate] = []
    for _, same in groupby(able, key=lambda each: each.unit.num_gpus):
        laid = _laid_out(same, lay_out, rates_of, request_bytes, rate, left)
        while batch := list(islice(laid, at_a_time)):
            answers = evaluate([Ask(layout=layout, above=rate, at_most=rate) for _, layout, _ in batch])
            tried += [
                Tried(candidate=candidate, layout=layout, bound=bound, answer=answer, above=rate)
                for (candidate, layout, bound), answer in zip(batch, answers, strict=True)
            ]
            if any(answer.rate is not None for answer in answers):
                return _outcome(tried, candidates, left, rate)
    return _outcome(tried, candidates, left, rate)


def _outcome(
    tried: Sequence[Tried], candidates: Sequence[Candidate], left: Sequence[Candidate], rate: float
) -> Outcome:
    """Those with more GPUs than the best are not counted: they are neither too small nor left."""
    return Outcome(
        tried=tuple(sorted(tried, key=lambda each: each.rank, reverse=True)),
        num_pruned=0,
        pruned_bound=0.0,
        num_left=len(left),
        left_bound=max((each.bound_per_gpu for each in left), default=0.0),
        num_too_small=sum(each.bound < rate for each in candidates),
    )


def _laid_out(
    candidates: Iterator[Candidate],
    lay_out: Callable[[Candidate], Layout | None],
    rates_of: RatesOf,
    request_bytes: float,
    rate: float,
    left: list[Candidate],
) -> Iterator[tuple[Candidate, Layout, float]]:
    """Those that are one too many go to `left`."""
    number = 0
    for candidate in candidates:
        if number == _PER_SIZE:
            left.append(candidate)
            continue
        layout = lay_out(candidate)
        if layout is not None:
            bound = min(candidate.bound, transfer_bound(layout, rates_of, request_bytes))
            if bound >= rate:
                number += 1
                yield candidate, layout, bound
