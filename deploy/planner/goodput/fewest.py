"""The fewest GPUs that serve a rate: all units of so many GPUs, then of one more, until one meets the SLOs."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice

from deploy.planner.goodput.best_first import Tried
from deploy.planner.goodput.bound import transfer_bound
from deploy.planner.goodput.candidates import Candidate, Catalogue
from deploy.planner.goodput.evaluation import Ask, Evaluate
from deploy.planner.goodput.layout import Layout

_AT_A_TIME = 4
_PER_SIZE = 12
"""So many of one size are tried, those that promise most: the others are taken to fall short too."""


def find_fewest(
    candidates: Sequence[Candidate],
    lay_out: Callable[[Candidate], Layout | None],
    catalogue: Catalogue,
    request_bytes: float,
    evaluate: Evaluate,
    rate: float,
) -> tuple[Tried | None, int]:
    """Of those with the fewest GPUs, one that serves the rate, None where none does; and how many were tried."""
    able = sorted(
        (each for each in candidates if each.bound >= rate),
        key=lambda each: (each.unit.num_gpus, -each.estimate, each.unit),
    )
    num_tried = 0
    for _, same in groupby(able, key=lambda each: each.unit.num_gpus):
        laid = _laid_out(same, lay_out, catalogue, request_bytes, rate)
        while batch := list(islice(laid, _AT_A_TIME)):
            num_tried += len(batch)
            answers = evaluate([Ask(layout=layout, above=rate, at_most=rate) for _, layout, _ in batch])
            for (candidate, layout, bound), answer in zip(batch, answers, strict=True):
                if answer.rate is not None:
                    found = Tried(candidate=candidate, layout=layout, bound=bound, answer=answer, above=rate)
                    return found, num_tried
    return None, num_tried


def _laid_out(
    candidates: Iterator[Candidate],
    lay_out: Callable[[Candidate], Layout | None],
    catalogue: Catalogue,
    request_bytes: float,
    rate: float,
) -> Iterator[tuple[Candidate, Layout, float]]:
    number = 0
    for candidate in candidates:
        layout = lay_out(candidate) if number < _PER_SIZE else None
        if layout is not None:
            bound = min(candidate.bound, transfer_bound(layout, catalogue.rates_of, request_bytes))
            if bound >= rate:
                number += 1
                yield candidate, layout, bound
