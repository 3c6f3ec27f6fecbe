"""Whole plans: the cluster full of units, or as many as a rate needs, simulated together."""

from collections.abc import Callable, Sequence
from math import ceil

from deploy.planner.goodput.best_first import Tried
from deploy.planner.goodput.bound import layout_bound
from deploy.planner.goodput.candidates import Catalogue
from deploy.planner.goodput.estimate import NOTHING
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
        layouts, copies = self._checked(whole)
        part, answer = self._best(layouts, whole.per_gpu, None)
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
            layouts, copies = self._checked(whole)
            part, answer = self._best(layouts, whole.per_gpu, rate / copies)
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

    def _checked(self, whole: Whole) -> tuple[tuple[Layout, ...], float]:
        """What is simulated for all of it, laid out in one way or two, and how many of that it is."""
        num_gpus = whole.layouts[0].unit.num_gpus
        if num_gpus <= CHECKED_GPUS:
            return whole.layouts, 1.0
        copies = max(1, CHECKED_GPUS // whole.unit.num_gpus)
        layout = self._ground.pack([(whole.unit, copies, whole.nodes)]) or self._ground.lay_out(whole.unit)
        assert layout is not None, "a part of what has room has room"
        return (layout,), num_gpus / layout.unit.num_gpus

    def _best(self, layouts: Sequence[Layout], per_gpu: float, rate: float | None) -> tuple[Layout, Answer]:
        """Of the layouts: with the most goodput per GPU, or serving the rate if any does."""
        asks = []
        for layout in layouts:
            self._say(f"{layout.unit} on {layout.num_nodes} nodes, together")
            bound = layout_bound(layout, self._catalogue.rates_of, self._question.request_bytes)
            if rate is not None:
                asks.append(Ask(layout=layout, above=rate, at_most=rate))
            elif bound > 0.0:
                asks.append(Ask(layout=layout, at_most=bound, expected=per_gpu * layout.unit.num_gpus))
        answers = self._evaluate(asks)
        found = [(ask.layout, answer) for ask, answer in zip(asks, answers, strict=True)]
        if not found:
            return layouts[0], Answer(rate=None, attainment=NOTHING)
        return max(found, key=lambda each: (each[1].rate or 0.0) / each[0].unit.num_gpus)

    def _plan(self, whole: Whole, part: Layout, copies: float, answer: Answer) -> Plan | None:
        if answer.rate is None:
            return None
        return Plan(
            layout=part if copies == 1.0 else whole.layouts[0],
            unit=whole.unit,
            copies=whole.copies,
            goodput=answer.rate * copies,
            attainment=answer.attainment,
            num_checked_gpus=part.unit.num_gpus,
        )
