"""One case of the comparison on its networks, one row after the other: plans are found, then all are measured alike."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from time import monotonic

import numpy as np

from cluster.latency.named import hardware_named
from deploy.bench.plan_cases import Case, Network, lengths_of, topology_of
from deploy.bench.plan_measure import Measure
from deploy.bench.plan_rows import COLOCATED, HIGH, LOW, OURS, Interval, Reached, Row
from deploy.planner.goodput.distserve_plans import DistServe
from deploy.planner.goodput.evaluation import Evaluate
from deploy.planner.goodput.find_plans import Search
from deploy.planner.goodput.layout import Layout
from deploy.planner.goodput.question import Lengths, Question, Slos
from deploy.planner.goodput.runnable import obstacles
from deploy.planning.memory import Memory
from deploy.planning.plan import setting_of
from deploy.planning.trial import Setting
from deploy.planning.workers import Workers

_MAX_LENGTHS = 4000

Say = Callable[[str, str], None]


class Stages(StrEnum):
    NONE = "none"
    DISTSERVE = "distserve"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """Where a plan is measured, requests arrive for `interval_s`, and at least for `num_ttfts` times the limit of TTFT:
    a queue that grows is to be seen. Where it is found, for `search_interval_s` (None: as `baton plan` does).
    `stages`: whose plans may have pipeline stages.
    """

    num_seeds: int = 3
    interval_s: float = 30.0
    num_ttfts: float = 10.0
    search_interval_s: float | None = None
    stages: Stages = Stages.DISTSERVE


class CaseRun:
    """What does not depend on the network is found once."""

    def __init__(self, case: Case, folder: Path, effort: Effort) -> None:
        self._case, self._effort = case, effort
        self._hardware = hardware_named(case.gpu, case.shape)
        lengths = np.random.default_rng(0).permutation(lengths_of(case, folder))[:_MAX_LENGTHS]
        self._lengths = Lengths(prompts=lengths[:, 0], outputs=lengths[:, 1])
        self._slos = Slos(ttft_s=case.limits_ms[0] / 1e3, tpot_s=case.limits_ms[1] / 1e3)
        self._interval_s = max(effort.interval_s, effort.num_ttfts * case.limits_ms[0] / 1e3)
        self._memory = Memory()
        self._measure: Measure | None = None

    def rows(self, networks: Sequence[Network], say: Say) -> Iterator[Row]:
        """`say(network, text)` is told how far it is."""
        setting = self._setting(self._question(networks[0]))  # one for all: what is remembered was found with it
        for network in networks:
            yield self._row(network, setting, partial(say, network.name))

    def _setting(self, question: Question) -> Setting:
        setting, interval_s = setting_of(question), self._effort.search_interval_s
        return setting if interval_s is None else replace(setting, interval_s=interval_s, least_requests=1)

    def _row(self, network: Network, setting: Setting, say: Callable[[str], None]) -> Row:
        start_s = monotonic()
        question = self._question(network)
        with Workers(setting, 0) as workers:
            evaluate = self._memory.beside(workers.evaluate)
            search = Search(question, evaluate, say)
            theirs = replace(question, allow_pp=self._effort.stages is not Stages.NONE)
            layouts = _layouts(theirs, search, evaluate, say)
        measure = self._measured(setting, search, question)
        reached = {}
        for plan, layout in layouts.items():
            reached[plan] = self._reached(measure, layout)
            say(f"{plan}: {Interval.of(reached[plan].per_gpu)} per GPU, {reached[plan].unit or 'nothing serves'}")
        return Row(
            case=self._case.name,
            network=network.name,
            is_unequal=network.is_unequal,
            reached=reached,
            seconds=round(monotonic() - start_s, 1),
        )

    def _measured(self, setting: Setting, search: Search, question: Question) -> Measure:
        """On another network than before."""
        if self._measure is None:
            longer, num_seeds = replace(setting, interval_s=self._interval_s), self._effort.num_seeds
            self._measure = Measure(longer, search.catalogue, question.request_bytes, num_seeds)
        self._measure.forget_network()
        return self._measure

    def _reached(self, measure: Measure, layout: Layout | None) -> Reached:
        if layout is None:
            return Reached(unit="", num_gpus=1, goodputs=(0.0,) * self._effort.num_seeds)
        unit = layout.unit
        return Reached(
            unit=str(unit),
            num_gpus=unit.num_gpus,
            goodputs=measure.goodputs(layout),
            num_beyond=measure.num_beyond[layout.seats],
            obstacles=tuple(obstacles(unit)),
        )

    def _question(self, network: Network) -> Question:
        topology = topology_of(self._case, network)
        return Question(
            topology=topology,
            hardware={node.name: self._hardware for node in topology.nodes},
            lengths=self._lengths,
            slos=self._slos,
            allow_pp=self._effort.stages is Stages.ALL,
        )


def _layouts(
    theirs: Question, search: Search, evaluate: Evaluate, say: Callable[[str], None]
) -> dict[str, Layout | None]:
    say("DistServe's plans")
    found = {HIGH: high_layout(theirs, evaluate), LOW: low_layout(theirs, evaluate)}
    disaggregated, mixed = search.best_plan(is_mixed=False), search.best_plan(is_mixed=True)
    best = search.plans(disaggregated, mixed).best
    return {OURS: best.layout, **found, COLOCATED: mixed.layout if mixed else None}


def high_layout(question: Question, evaluate: Evaluate) -> Layout | None:
    """With as many GPUs as can be had in pieces of nodes."""
    planner = DistServe(question, evaluate)
    for num_gpus in range(question.total_gpus, 0, -1):
        plan = planner.high(num_gpus=num_gpus)
        if plan is not None and (layout := planner.layout(plan, pairs=False)) is not None:
            return layout
    return None


def low_layout(question: Question, evaluate: Evaluate) -> Layout | None:
    planner = DistServe(question, evaluate)
    plan = planner.low()
    return None if plan is None else planner.layout(plan, pairs=True)
