"""Whole plans: the cluster full of units, or as many as a rate needs, simulated together."""

from collections.abc import Callable, Sequence
from math import ceil

from deploy.planner.goodput.best_first import RESOLUTION, Tried
from deploy.planner.goodput.bound import compute_bound, layout_bound
from deploy.planner.goodput.candidates import Catalogue
from deploy.planner.goodput.estimate import NOTHING, Attainment
from deploy.planner.goodput.evaluation import Answer, Ask, Evaluate
from deploy.planner.goodput.layout import Ground, Layout
from deploy.planner.goodput.plans import Plan
from deploy.planner.goodput.question import Question
from deploy.planner.goodput.refine import Refine
from deploy.planner.goodput.unit import Copies, join
from deploy.planner.goodput.whole import WORTH_IT, Part, Share, Whole, fill

CHECKED_GPUS = 64
"""Plans of up to so many are simulated whole; of larger ones, about so many stand for all."""

Say = Callable[[str], None]


class Check:
    def __init__(self, question: Question, ground: Ground, catalogue: Catalogue, evaluate: Evaluate, say: Say) -> None:
        self._question, self._ground, self._catalogue = question, ground, catalogue
        self._evaluate, self._say = evaluate, say
        self._samples: dict[object, tuple[Layout, Answer]] = {}
        self._refine = Refine(ground, catalogue, question.request_bytes, evaluate)

    def most(self, parts: Sequence[Part], *, worth: float = WORTH_IT) -> Plan | None:
        """With the nodes full of them. None: together they do not meet the SLOs. `worth`: see `fill`."""
        whole = fill(parts, self._ground, self._question.total_gpus, worth=worth)
        if whole is None:
            return None
        if whole.layouts[0].unit.num_gpus > CHECKED_GPUS:
            return self._by_parts(whole)
        layout, answer = self._best(whole.layouts, whole.per_gpu, None)
        if answer.rate is not None and not self._question.pairs_only:
            layout, answer = self._refine.most_per_gpu(layout, answer, self._question.total_gpus)
        return _plan(layout, whole.copies, answer)

    def better(self, plan: Plan, rivals: Sequence[Part]) -> Plan:
        """`plan`, or the nodes full of one of these, where that serves more per GPU in the long run."""
        kept_up = min(plan.per_gpu, compute_bound(plan.whole, self._catalogue.rates_of) / plan.num_gpus)
        asks = [(part, self._ask_of_copies(part, kept_up * (1.0 + RESOLUTION))) for part in rivals]
        able = [(part, ask) for part, ask in asks if ask is not None]
        answers = self._evaluate([ask for _, ask in able])
        better = [
            (min(answer.rate, ask.at_most) / ask.layout.unit.num_gpus, at)
            for at, ((_, ask), answer) in enumerate(zip(able, answers, strict=True))
            if answer.rate is not None
        ]
        found = self.most([able[max(better)[1]][0]]) if better else None
        return found or plan

    def _ask_of_copies(self, part: Part, above_per_gpu: float) -> Ask | None:
        """Whether as many copies as may be simulated serve more than so much per GPU. None: they cannot."""
        most = min(part.num_gpus, self._question.total_gpus, CHECKED_GPUS)
        layout = self._ground.among(part.nodes).pack(part.unit, most // part.unit.num_gpus)
        assert layout is not None, "a part of what has room has room"
        bound = layout_bound(layout, self._catalogue.rates_of, self._question.request_bytes)
        above = above_per_gpu * layout.unit.num_gpus
        return Ask(layout=layout, above=above, at_most=bound, is_rough=True) if bound > above else None

    def for_rate(self, parts: Sequence[Part], rate: float) -> Plan | None:
        """As many of them as it takes; where all GPUs are too few, the plan that uses all. None: it serves nothing.

        For this rate no node is too slow to be used.
        """
        best = max(parts, key=lambda part: part.per_gpu)
        most = self._question.total_gpus
        for num_gpus in range(ceil(rate / best.goodput) * best.unit.num_gpus, most, best.unit.num_gpus):
            whole = fill(parts, self._ground, num_gpus, worth=0.0)
            plan = None if whole is None else self._serving(whole, rate)
            if plan is not None and plan.goodput >= rate:
                return plan
        return self.most(parts, worth=0.0)

    def as_plan(self, tried: Tried) -> Plan:
        """A unit that is all there is."""
        unit = tried.candidate.unit
        plan = _plan(tried.layout, (Copies(unit=unit, number=1),), tried.answer)
        assert plan is not None, "it serves something"
        return plan

    def _serving(self, whole: Whole, rate: float) -> Plan | None:
        if whole.layouts[0].unit.num_gpus > CHECKED_GPUS:
            return self._by_parts(whole)
        layout, answer = self._best(whole.layouts, whole.per_gpu, rate)
        if answer.rate is not None:
            layout, answer = self._refine.fewest(layout, answer, rate)
        return _plan(layout, whole.copies, answer)

    def _by_parts(self, whole: Whole) -> Plan | None:
        """Each part by itself on its own nodes: as many copies as are simulated stand for all of them."""
        most = CHECKED_GPUS // len(whole.shares)
        goodput, num_checked_gpus, is_beyond, found = 0.0, 0, False, []
        for share in whole.shares:
            layout, answer = self._sample(share, most)
            own = (answer.rate or 0.0) * share.layout.unit.num_gpus / layout.unit.num_gpus
            found.append((own, answer.attainment))
            is_beyond = is_beyond or answer.is_beyond
            goodput, num_checked_gpus = goodput + own, num_checked_gpus + layout.unit.num_gpus
        if not goodput:
            return None
        return Plan(
            layout=whole.layouts[0],
            parts=whole.copies,
            goodput=goodput,
            attainment=_mean(found),
            num_checked_gpus=num_checked_gpus,
            is_beyond=is_beyond,
        )

    def _sample(self, share: Share, most_gpus: int) -> tuple[Layout, Answer]:
        """So many GPUs of a part at most, or one copy; simulated once."""
        part = share.part
        copies = min(share.copies, max(1, most_gpus // part.unit.num_gpus))
        layout = self._ground.among(part.nodes).pack(part.unit, copies)
        assert layout is not None, "a part of what has room has room"
        key = part.unit, part.nodes, copies
        if key not in self._samples:
            self._samples[key] = self._best([layout], part.per_gpu, None, is_rough=False)
        return self._samples[key]

    def _best(
        self, layouts: Sequence[Layout], per_gpu: float, rate: float | None, *, is_rough: bool = True
    ) -> tuple[Layout, Answer]:
        """Of the layouts: with the most goodput per GPU, or serving the rate if any does."""
        asks = []
        for layout in layouts:
            self._say(f"{layout.unit} on {layout.num_nodes} nodes, together")
            bound = layout_bound(layout, self._catalogue.rates_of, self._question.request_bytes)
            if rate is not None:
                asks.append(Ask(layout=layout, above=rate, at_most=rate))
            elif bound > 0.0:
                expected = per_gpu * layout.unit.num_gpus
                asks.append(Ask(layout=layout, at_most=bound, expected=expected, is_rough=is_rough))
        answers = self._evaluate(asks)
        found = [(ask.layout, answer) for ask, answer in zip(asks, answers, strict=True)]
        if not found:
            return layouts[0], Answer(rate=None, attainment=NOTHING)
        return max(found, key=lambda each: (each[1].rate or 0.0) / each[0].unit.num_gpus)


def _plan(layout: Layout, copies: tuple[Copies, ...], answer: Answer) -> Plan | None:
    """Of copies, or of a unit of its own where it is not them any more."""
    if answer.rate is None:
        return None
    is_copies = sorted(join([each.unit.times(each.number) for each in copies]).pools) == sorted(layout.unit.pools)
    return Plan(
        layout=layout,
        parts=copies if is_copies else (Copies(unit=layout.unit, number=1),),
        goodput=answer.rate,
        attainment=answer.attainment,
        is_beyond=answer.is_beyond,
        num_checked_gpus=layout.unit.num_gpus,
    )


def _mean(found: Sequence[tuple[float, Attainment]]) -> Attainment:
    """Of all requests, of which each part serves its own share."""
    total = sum(goodput for goodput, _ in found)
    ttft, tpot, both = (
        sum(goodput * getattr(attainment, name) for goodput, attainment in found) / total
        for name in ("ttft", "tpot", "both")
    )
    return Attainment(ttft=ttft, tpot=tpot, both=both)
