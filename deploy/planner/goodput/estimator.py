"""An evaluator in closed form, where simulating would take too long: the estimate, with links taken into account."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf

import numpy as np

from deploy.planner.goodput.bound import transfer_bound
from deploy.planner.goodput.candidates import Catalogue
from deploy.planner.goodput.estimate import Estimate
from deploy.planner.goodput.evaluation import Answer, Ask
from deploy.planner.goodput.layout import Layout
from deploy.planner.goodput.question import Slos


class Estimator:
    """Its `evaluate` is one. A transfer goes where the maximum flow lets it, at what its link gives it alone."""

    def __init__(self, catalogue: Catalogue, slos: Slos, request_bytes: float) -> None:
        self._catalogue, self._slos, self._request_bytes = catalogue, slos, request_bytes

    def evaluate(self, asks: Sequence[Ask]) -> list[Answer]:
        return [self._answer(ask) for ask in asks]

    def _answer(self, ask: Ask) -> Answer:
        unit, transfer_s, most = ask.layout.unit, 0.0, ask.at_most
        if ask.phase is not None:
            unit = replace(unit, pools=tuple(pool for pool in unit.pools if pool.role == ask.phase))
        elif not unit.is_mixed:
            most = min(most, transfer_bound(ask.layout, self._catalogue.rates_of, self._request_bytes))
            transfer_s = self._transfer_s(ask.layout)
        estimate = Estimate(unit, self._slos, self._catalogue.rates_of, transfer_s)
        rate = 0.0
        if ask.above > 0.0:
            found = estimate.at(ask.above)
            if found.both < self._slos.attainment or ask.above > most * (1.0 + 1e-9):
                return Answer(rate=None, attainment=found)
            rate = ask.above
        rate = max(rate, estimate.goodput(most))
        if rate <= 0.0:
            return Answer(rate=None, attainment=estimate.at(most))
        return Answer(rate=rate, attainment=estimate.at(rate))

    def _transfer_s(self, layout: Layout) -> float:
        """Of the mean prompt from a prefill instance to the decode instance that it reaches soonest, on the average."""
        nodes: dict[str, set[str]] = {"prefill": set(), "decode": set()}
        for seat in layout.seats:
            nodes[seat.pool.role].add(seat.node)
        soonest = [
            min(self._link_s(layout, source, target) for target in nodes["decode"]) for source in nodes["prefill"]
        ]
        return float(np.mean(soonest))

    def _link_s(self, layout: Layout, source: str, target: str) -> float:
        topology = layout.topology
        at = topology.index(source), topology.index(target)
        alpha_s, beta = float(topology.alpha_s[at]), float(topology.beta_bytes_per_s[at])
        if np.isnan(beta):
            return 0.0 if source == target else inf
        rates = [beta]
        if source != target:
            rates += [topology.node(source).egress_bytes_per_s or inf, topology.node(target).ingress_bytes_per_s or inf]
        return alpha_s + self._request_bytes / min(rates)
