"""Whole plans: the cluster full of units, or as many as a rate needs, simulated together."""

from collections.abc import Callable, Sequence
from math import ceil

from deploy.planner.goodput.best_first import Tried
from deploy.planner.goodput.bound import layout_bound
from deploy.planner.goodput.candidates import Catalogue
from deploy.planner.goodput.evaluation import Answer, Ask, Evaluate
from deploy.planner.goodput.layout import Ground, Layout
from deploy.planner.goodput.plans import Plan
from deploy.planner.goodput.question import Question
from deploy.planner.goodput.refine import Refine
from deploy.planner.goodput.whole import Part, Whole, fill

CHECKED_GPUS = 64
"""Plans of up to so many are simulated whole; of larger ones, so many stand for all."""

Say = Callable[[str], None]


class Check:
    def __init__(self, question: Question, ground: Ground, catalogue: Catalogue, evaluate: Evaluate, say: Say) -> None:
        self._question, self._ground, self._catalogue = question, ground, catalogue
        self._evaluate, self._say = evaluate, say
        self._refine = Refine(ground, catalogue, question.request_bytes, evaluate)

    def most(self, parts: Sequence[Part]) -> Plan | None:
        """With the nodes full of them. None: together they do not meet the SLOs."""
        whole = fill(parts, self._ground, self._question.total_gpus)
        if whole is None:
            return None
        part, copies = self._part_of(whole)
        answer = self._goodput(part, whole.expected / copies)
        if copies == 1.0 and answer.rate is not None and not self._question.pairs_only:
            part, answer = self._refine.most_per_gpu(part, answer, self._question.total_gpus)
        return self._plan(whole, part, copies, answer)

    def for_rate(self, parts: Sequence[Part], rate: float) -> Plan | None:
        """As many of them as it takes. None: there are not GPUs enough."""
        best = max(parts, key=lambda part: part.per_gpu)
        num_gpus = ceil(rate / best.goodput) * best.unit.num_gpus
        while num_gpus <= self._question.total_gpus:
            whole = fill(parts, self._ground, num_gpus)
            if whole is None:
                return None
            part, copies = self._part_of(whole)
            wanted = rate / copies
            answer = self._evaluate([Ask(layout=part, above=wanted, at_most=wanted)])[0]
            if answer.rate is not None:
                if copies == 1.0:
                    part, answer = self._refine.fewest(part, answer, rate)
                return self._plan(whole, part, copies, answer)
            num_gpus += best.unit.num_gpus
        return None

    def as_plan(self, tried: Tried) -> Plan:
        """A unit that is all there is."""
        unit = tried.candidate.unit
        return Plan(
            layout=tried.layout,
            unit=unit,
            copies=1,
            goodput=tried.answer.rate or 0.0,
            attainment=tried.answer.attainment,
            num_checked_gpus=unit.num_gpus,
        )

    def _part_of(self, whole: Whole) -> tuple[Layout, float]:
        """What is simulated for all of it, and how many of that it is."""
        if whole.layout.unit.num_gpus <= CHECKED_GPUS:
            return whole.layout, 1.0
        unit = whole.unit.times(max(1, CHECKED_GPUS // whole.unit.num_gpus))
        layout = self._ground.lay_out(unit)
        assert layout is not None, "a part of what has room has room"
        return layout, whole.layout.unit.num_gpus / unit.num_gpus

    def _goodput(self, layout: Layout, expected: float) -> Answer:
        self._say(f"{layout.unit} on {layout.num_nodes} nodes, together")
        bound = layout_bound(layout, self._catalogue.rates_of, self._question.request_bytes)
        return self._evaluate([Ask(layout=layout, at_most=bound, expected=expected)])[0]

    def _plan(self, whole: Whole, part: Layout, copies: float, answer: Answer) -> Plan | None:
        if answer.rate is None:
            return None
        return Plan(
            layout=part if copies == 1.0 else whole.layout,
            unit=whole.unit,
            copies=whole.copies,
            goodput=answer.rate * copies,
            attainment=answer.attainment,
            num_checked_gpus=part.unit.num_gpus,
        )
