"""How much a plan serves of requests that no search has seen: the highest rate at which it meets the limits."""

from collections import Counter
from dataclasses import replace

from deploy.planner.goodput.bound import layout_bound
from deploy.planner.goodput.candidates import Catalogue
from deploy.planner.goodput.evaluation import Ask
from deploy.planner.goodput.layout import Layout, Seated
from deploy.planning.trial import Setting
from deploy.planning.workers import answer

Seats = tuple[Seated, ...]

FIRST_SEED = 1000
"""The search has its own, from 0 on."""


class Measure:
    """With the same seeds all plans have the same requests. A layout that is there twice is measured once.

    `num_beyond`: by seats, of how many seeds more was found than can be served in the long run.
    """

    def __init__(self, setting: Setting, catalogue: Catalogue, request_bytes: float, num_seeds: int) -> None:
        self._setting, self._catalogue, self._request_bytes = setting, catalogue, request_bytes
        self._seeds = range(FIRST_SEED, FIRST_SEED + num_seeds)
        self._known: dict[Seats, tuple[float, ...]] = {}
        self.num_beyond: Counter[Seats] = Counter()

    def forget_network(self) -> None:
        """What is known of plans that send KV. Colocated instances keep theirs, whatever lies between them."""
        for seats in [seats for seats in self._known if not all(seat.pool.role == "mixed" for seat in seats)]:
            del self._known[seats], self.num_beyond[seats]

    def goodputs(self, layout: Layout) -> tuple[float, ...]:
        """Requests a second, for each seed, as simulated: not cut to any bound."""
        if layout.seats not in self._known:
            bound = layout_bound(layout, self._catalogue.rates_of, self._request_bytes)
            self._known[layout.seats] = self._measure(Ask(layout=layout, at_most=bound))
        return self._known[layout.seats]

    def _measure(self, ask: Ask) -> tuple[float, ...]:
        found: list[float] = []
        for seed in self._seeds:
            near = replace(ask, expected=found[-1]) if found and found[-1] else ask
            told = answer(self._setting.with_seed(seed), near)
            found.append(told.rate or 0.0)
            self.num_beyond[ask.layout.seats] += told.is_beyond
        return tuple(found)
