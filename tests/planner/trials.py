"""Goodputs and attainments of layouts for several seeds, simulated in processes."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from deploy.planner.goodput.crossing import crossing
from deploy.planner.goodput.estimate import Attainment
from deploy.planner.goodput.layout import Layout
from deploy.planning.trial import Setting, run_trial
from tests.planner.spread import Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """`is_each`: each limit by itself is met by the share that is asked for; else both by the same requests."""

    setting: Setting
    seeds: Sequence[int]
    is_each: bool = False

    def longer(self, times: float) -> "Trials":
        return replace(self, setting=self.setting.longer(times))

    def goodputs(self, layout: Layout, near: float) -> Spread:
        """Requests a second per GPU, where attainment falls below what is asked for."""
        return self._over_seeds(_goodput, layout, near)

    def attainments(self, layout: Layout, rate: float) -> Spread:
        return self._over_seeds(_attainment, layout, rate)

    def _over_seeds(
        self, function: Callable[["Trials", Layout, float, int], float], layout: Layout, rate: float
    ) -> Spread:
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            return Spread(tuple(pool.map(partial(function, self, layout, rate), self.seeds)))

    def at(self, seed: int, layout: Layout, rate: float) -> Attainment:
        found = run_trial(self.setting.with_seed(seed), layout, rate, to_the_end=True)
        return replace(found, both=min(found.ttft, found.tpot)) if self.is_each else found


def _goodput(trials: Trials, layout: Layout, near: float, seed: int) -> float:
    found = crossing(partial(trials.at, seed, layout), trials.setting.slos.attainment, near)
    return (found.rate or 0.0) / layout.unit.num_gpus


def _attainment(trials: Trials, layout: Layout, rate: float, seed: int) -> float:
    return trials.at(seed, layout, rate).both
