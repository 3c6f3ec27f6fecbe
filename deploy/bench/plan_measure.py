"""How much a plan serves of requests that no search has seen: the highest rate at which it meets the limits."""

from dataclasses import replace

import numpy as np

from deploy.planner.goodput.bound import layout_bound
from deploy.planner.goodput.candidates import Catalogue
from deploy.planner.goodput.evaluation import Ask
from deploy.planner.goodput.layout import Layout
from deploy.planner.goodput.question import Lengths
from deploy.planning.trial import Setting
from deploy.planning.workers import answer

FIRST_SEED = 1000
"""The search has its own, from 0 on."""


class Measure:
    """With the same seeds all plans have the same requests. A layout that is there twice is measured once."""

    def __init__(self, setting: Setting, catalogue: Catalogue, request_bytes: float, num_seeds: int) -> None:
        self._setting, self._catalogue, self._request_bytes = setting, catalogue, request_bytes
        self._seeds = range(FIRST_SEED, FIRST_SEED + num_seeds)
        self._known: dict[object, tuple[float, ...]] = {}

    def goodputs(self, layout: Layout) -> tuple[float, ...]:
        """Requests a second, for each seed; no more than is served in the long run, which no trial lasts for."""
        if layout.seats not in self._known:
            bound = layout_bound(layout, self._catalogue.rates_of, self._request_bytes)
            self._known[layout.seats] = self._measure(Ask(layout=layout, at_most=bound))
        return self._known[layout.seats]

    def _measure(self, ask: Ask) -> tuple[float, ...]:
        found: list[float] = []
        for seed in self._seeds:
            near = replace(ask, expected=found[-1]) if found and found[-1] else ask
            found.append(answer(_with_seed(self._setting, seed), near).rate or 0.0)
        return tuple(found)


def _with_seed(setting: Setting, seed: int) -> Setting:
    """Other gaps, and the lengths in another order."""
    order = np.random.default_rng(seed).permutation(len(setting.lengths.prompts))
    lengths = Lengths(prompts=setting.lengths.prompts[order], outputs=setting.lengths.outputs[order])
    return replace(setting, seed=seed, lengths=lengths)
