"""A whole plan made a little better: an instance more or less of a pool, where simulation says that it helps."""

from collections.abc import Iterator
from dataclasses import replace

from deploy.planner.goodput.best_first import RESOLUTION
from deploy.planner.goodput.bound import compute_bound, layout_bound
from deploy.planner.goodput.candidates import Catalogue
from deploy.planner.goodput.evaluation import Answer, Ask, Evaluate
from deploy.planner.goodput.layout import Ground, Layout
from deploy.planner.goodput.unit import Unit

_KEPT = 0.9  # of its GPUs: a plan is not made better by being made small


class Refine:
    def __init__(self, ground: Ground, catalogue: Catalogue, request_bytes: float, evaluate: Evaluate) -> None:
        self._ground, self._catalogue = ground, catalogue
        self._request_bytes, self._evaluate = request_bytes, evaluate

    def most_per_gpu(self, layout: Layout, answer: Answer, num_gpus: int) -> tuple[Layout, Answer]:
        """With at most so many GPUs, and not many less; what it was where nothing is better."""
        least, best = _KEPT * layout.unit.num_gpus, (answer.rate or 0.0) / layout.unit.num_gpus
        units = [unit for unit in _neighbours(layout.unit, num_gpus) if unit.num_gpus >= least]
        found = [self._ask(unit, best * (1.0 + RESOLUTION) * unit.num_gpus) for unit in units]
        asks = [ask for ask in found if ask is not None]
        answers = [(ask.layout, own) for ask, own in zip(asks, self._evaluate(asks), strict=True)]
        better = [(it, own) for it, own in answers if own.rate is not None]
        return max(better, key=lambda each: (each[1].rate or 0.0) / each[0].unit.num_gpus, default=(layout, answer))

    def fewest(self, layout: Layout, answer: Answer, rate: float) -> tuple[Layout, Answer]:
        """Without what is not needed for this rate, an instance at a time."""
        while True:
            units = list(_neighbours(layout.unit, layout.unit.num_gpus - 1))
            asks = [ask for unit in units if (ask := self._ask(unit, rate, rate)) is not None]
            less = [
                (ask.layout, found)
                for ask, found in zip(asks, self._evaluate(asks), strict=True)
                if found.rate is not None
            ]
            if not less:
                return layout, answer
            layout, answer = min(less, key=lambda each: each[0].unit.num_gpus)

    def _ask(self, unit: Unit, above: float, at_most: float | None = None) -> Ask | None:
        """None: it cannot reach `above`, or has no room."""
        if compute_bound(unit, self._catalogue.rates_of) < above:
            return None
        layout = self._ground.lay_out(unit)
        bound = layout_bound(layout, self._catalogue.rates_of, self._request_bytes) if layout else 0.0
        if layout is None or bound < above:
            return None
        return Ask(layout=layout, above=above, at_most=bound if at_most is None else at_most, is_rough=True)


def _neighbours(unit: Unit, num_gpus: int) -> Iterator[Unit]:
    """One instance more or less of a pool, or of one more and of another less."""
    changes = [(at, by) for at in range(len(unit.pools)) for by in (-1, 1)]
    pairs = [((at, 1), (other, -1)) for at, _ in changes[::2] for other, _ in changes[::2] if at != other]
    for change in [*((each,) for each in changes), *pairs]:
        pools = list(unit.pools)
        for at, by in change:
            pools[at] = replace(pools[at], num_instances=pools[at].num_instances + by)
        found = Unit(pools=tuple(pools))
        if all(pool.num_instances > 0 for pool in pools) and found.num_gpus <= num_gpus:
            yield found
