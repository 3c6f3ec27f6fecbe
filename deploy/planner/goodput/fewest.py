"""The fewest GPUs that serve a rate: all units of so many GPUs, then of one more, until one meets the SLOs."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice

from deploy.planner.goodput.best_first import Outcome, Tried
from deploy.planner.goodput.bound import transfer_bound
from deploy.planner.goodput.candidates import Candidate
from deploy.planner.goodput.estimate import RatesOf
from deploy.planner.goodput.evaluation import Ask, Evaluate
from deploy.planner.goodput.layout import Layout

_AT_A_TIME = 2
_PER_SIZE = 12
"""So many of one size are tried, those that promise most: the others are taken to fall short too."""


def find_fewest(
    candidates: Sequence[Candidate],
    lay_out: Callable[[Candidate], Layout | None],
    rates_of: RatesOf,
    request_bytes: float,
    evaluate: Evaluate,
    rate: float,
) -> Outcome:
    """Its best is one with the fewest GPUs of those that serve the rate, and None where none does."""
    able = sorted(
        (each for each in candidates if each.bound >= rate),
        key=lambda each: (each.unit.num_gpus, -each.estimate, each.unit),
    )
    tried: list[Tried] = []
    for _, same in groupby(able, key=lambda each: each.unit.num_gpus):
        laid = _laid_out(same, lay_out, rates_of, request_bytes, rate)
        while batch := list(islice(laid, _AT_A_TIME)):
            answers = evaluate([Ask(layout=layout, above=rate, at_most=rate) for _, layout, _ in batch])
            tried += [
                Tried(candidate=candidate, layout=layout, bound=bound, answer=answer, above=rate)
                for (candidate, layout, bound), answer in zip(batch, answers, strict=True)
            ]
            if any(answer.rate is not None for answer in answers):
                return _outcome(tried, candidates, rate)
    return _outcome(tried, candidates, rate)


def _outcome(tried: Sequence[Tried], candidates: Sequence[Candidate], rate: float) -> Outcome:
    unable = [each.bound_per_gpu for each in candidates if each.bound < rate]
    return Outcome(
        tried=tuple(sorted(tried, key=lambda each: each.rank, reverse=True)),
        num_pruned=len(unable),
        pruned_bound=max(unable, default=0.0),
        num_left=0,
        left_bound=0.0,
    )


def _laid_out(
    candidates: Iterator[Candidate],
    lay_out: Callable[[Candidate], Layout | None],
    rates_of: RatesOf,
    request_bytes: float,
    rate: float,
) -> Iterator[tuple[Candidate, Layout, float]]:
    number = 0
    for candidate in candidates:
        layout = lay_out(candidate) if number < _PER_SIZE else None
        if layout is not None:
            bound = min(candidate.bound, transfer_bound(layout, rates_of, request_bytes))
            if bound >= rate:
                number += 1
                yield candidate, layout, bound
