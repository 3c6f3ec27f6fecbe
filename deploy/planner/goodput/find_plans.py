"""The whole search: the best unit for each class of nodes, then the cluster full of copies, then a check of that."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from deploy.planner.goodput.best_first import RESOLUTION, Outcome, Tried, find_best
from deploy.planner.goodput.candidates import Candidate, Catalogue, disaggregated_units, mixed_units
from deploy.planner.goodput.check import Check, Say
from deploy.planner.goodput.evaluation import Evaluate
from deploy.planner.goodput.fewest import find_fewest
from deploy.planner.goodput.layout import Ground, Layout
from deploy.planner.goodput.node_classes import NodeClass, largest_nodes, node_classes
from deploy.planner.goodput.part_choice import PartChoice
from deploy.planner.goodput.plan_bound import plan_bound
from deploy.planner.goodput.plans import Effort, Lost, Plan, Plans, Scored
from deploy.planner.goodput.question import Infeasible, Question
from deploy.planner.goodput.runnable import obstacles
from deploy.planner.goodput.unit import Unit
from deploy.planner.goodput.whole import Part
from deploy.planner.goodput.why import why_lost, why_more_gpus
from deploy.planner.goodput.why_none import WhyNone

UNIT_GPUS = 8
"""Units of up to so many GPUs are searched; larger clusters are filled with copies of the best."""

_SPANNING_GPUS = 16
_SPANNING_INSTANCES = 2  # of a role in a larger unit, which lies across nodes
_MAX_ASKS = 16  # units of one sort on one class of nodes that are simulated
_NUM_LOST = 4


Confirm = Callable[[Sequence[Plan | None]], Sequence[Plan | None]]
"""The same plans with what they are found to serve when looked at again; None for those that serve nothing then."""

Find = Callable[[], Plan | None]
FindAll = Callable[[Sequence[Find]], list[Plan | None]]
"""Calls all of them, in an order of its own or at once: they do not depend on each other."""


def in_turn(finds: Sequence[Find]) -> list[Plan | None]:
    return [find() for find in finds]


def find_plans(
    question: Question,
    evaluate: Evaluate,
    say: Say = lambda _: None,
    confirm: Confirm = lambda plans: plans,
    find_all: FindAll = in_turn,
    at_a_time: int = 2,
) -> Plans:
    """Infeasible, where nothing meets the SLOs, or the rate. `at_a_time`: so many units are simulated at once."""
    search = Search(question, evaluate, say, at_a_time)
    disaggregated, mixed = confirm(find_all(search.best_of_each_sort))
    found = search.plans(disaggregated, mixed)
    if not obstacles(found.best.whole):
        return replace(found, runnable=found.best)
    say("what baton up can run")
    try:
        runnable = Search(replace(question, runnable_only=True, allow_pp=False), evaluate, say, at_a_time)
        plans = find_all(runnable.best_of_each_sort)
        best = confirm([runnable.best_of([plan for plan in plans if plan is not None])])
        return replace(found, runnable=runnable.best_of([plan for plan in best if plan is not None]))
    except Infeasible as error:
        return replace(found, why_not_runnable=str(error))


class Search:
    def __init__(self, question: Question, evaluate: Evaluate, say: Say = lambda _: None, at_a_time: int = 2) -> None:
        self._question, self._evaluate, self._say, self._at_a_time = question, evaluate, say, at_a_time
        kinds = {name: hardware.name for name, hardware in question.hardware.items()}
        self.catalogue = Catalogue(question)
        self.ground = Ground(question.topology, kinds, question.request_bytes)
        self.classes = node_classes(question.topology, kinds)
        self.catalogue.check(largest_nodes(self.classes))
        self._why_none = WhyNone(question, self.catalogue, self.classes)
        if why := self._why_none.of_too_few_gpus():
            raise Infeasible(why)
        self._plan_bound = plan_bound(self.catalogue, self.classes)
        most = self._plan_bound * question.total_gpus
        if question.rate is not None and question.rate > most * (1.0 + RESOLUTION):
            raise Infeasible(
                f"{question.rate:g} requests a second are too many: by computing and memory no plan on "
                f"{question.total_gpus} GPUs serves more than {most:.3g}"
            )
        self._check = Check(question, self.ground, self.catalogue, evaluate, say)
        self._num_candidates: list[int] = []
        self._outcomes: list[Outcome] = []
        self._too_little: list[Plan] = []  # with all GPUs they serve less than the rate

    @property
    def best_of_each_sort(self) -> list[Find]:
        """Apart, and colocated."""
        return [partial(self.best_plan, is_mixed=is_mixed) for is_mixed in (False, True)]

    def best_plan(self, *, is_mixed: bool) -> Plan | None:
        """None: none meets the SLOs, or the rate."""
        self._say("colocated instances" if is_mixed else "prefill and decode instances")
        rate = self._question.rate
        if rate is not None and (few := self._fewest(rate, is_mixed=is_mixed)) is not None:
            return self._check.as_plan(few)
        choices = [self._choice(each, is_mixed=is_mixed) for each in self.classes]
        if not is_mixed and not self._question.runnable_only:
            choices += self._choices_across()
        if not self._question.runnable_only:
            return self._whole(choices)
        kinds = dict.fromkeys(each.kind for each in self.classes)  # no file says which kind a pool is for
        plans = [self._whole([each for each in choices if each.kinds == (kind,)]) for kind in kinds]
        there = [plan for plan in plans if plan is not None]
        return self.best_of(there) if there else None

    def best_of(self, plans: Sequence[Plan]) -> Plan:
        """Infeasible, when there is none."""
        if not plans:
            raise Infeasible(self._why_none.of_all(self._tried, self._too_little))
        if self._question.rate is None:
            return max(plans, key=lambda plan: plan.per_gpu)
        return min(plans, key=lambda plan: (plan.num_gpus, -plan.goodput))

    def plans(self, disaggregated: Plan | None, mixed: Plan | None) -> Plans:
        """Infeasible, when there is neither."""
        best = self.best_of([plan for plan in (disaggregated, mixed) if plan is not None])
        losers = sorted(self._nearest_of_each_split(best), key=lambda tried: tried.rank, reverse=True)
        return Plans(
            best=best,
            mixed=mixed,
            disaggregated=disaggregated,
            lost=tuple(self._lost(tried, best) for tried in losers[:_NUM_LOST]),
            scored=tuple(
                Scored(unit=each.candidate.unit, per_gpu=each.per_gpu, bound_per_gpu=each.bound_per_gpu)
                for each in self._tried
            ),
            effort=self._effort(),
            why_not_mixed="" if mixed else self._why_none_of(is_mixed=True),
            why_not_disaggregated="" if disaggregated else self._why_none_of(is_mixed=False),
        )

    def _whole(self, choices: Sequence[PartChoice]) -> Plan | None:
        """None: together they do not meet the SLOs, or serve the rate."""
        parts = [part for each in choices if (part := each.best) is not None]
        rate = self._question.rate
        if not parts:
            return None
        if rate is None:
            return self._most(choices, parts)
        found = self._check.for_rate(parts, rate)
        if found is None or found.goodput < rate:  # of what serves less per GPU, more may have room
            fullest = [part for each in choices if (part := each.fullest) is not None]
            others = [] if fullest == parts else [self._check.most(fullest, worth=0.0)]
            there = [plan for plan in (found, *others) if plan is not None]
            found = max(there, key=lambda plan: plan.goodput, default=None)
        if found is not None and found.goodput < rate:
            self._too_little.append(found)
            return None
        return found

    def _most(self, choices: Sequence[PartChoice], parts: Sequence[Part]) -> Plan | None:
        plan = self._check.most(parts)
        if plan is None or len(choices) > 1 or self._question.pairs_only:
            return plan
        return self._check.better(plan, choices[0].rivals(self._question.slos.attainment))

    def _why_none_of(self, *, is_mixed: bool) -> str:
        tried = [each for each in self._tried if each.candidate.unit.is_mixed == is_mixed]
        too_little = [plan for plan in self._too_little if plan.whole.is_mixed == is_mixed]
        return self._why_none.of_sort(("mixed",) if is_mixed else ("prefill", "decode"), tried, too_little)

    def _lost(self, tried: Tried, best: Plan) -> Lost:
        if tried.above == self._question.rate:
            return why_more_gpus(tried, best.num_gpus, self._question.slos)
        return why_lost(tried, max(self._tried, key=lambda each: each.per_gpu), self._question.slos)

    @property
    def _tried(self) -> list[Tried]:
        return [tried for outcome in self._outcomes for tried in outcome.tried]

    def _effort(self) -> Effort:
        return Effort(
            num_candidates=sum(self._num_candidates),
            num_tried=len(self._tried),
            num_pruned=sum(outcome.num_pruned for outcome in self._outcomes),
            pruned_bound=max(outcome.pruned_bound for outcome in self._outcomes),
            num_left=sum(outcome.num_left for outcome in self._outcomes),
            left_bound=max(outcome.left_bound for outcome in self._outcomes),
            num_too_small=sum(outcome.num_too_small for outcome in self._outcomes),
            plan_bound=self._plan_bound,
        )

    def _nearest_of_each_split(self, best: Plan) -> list[Tried]:
        """Of each choice of roles and parallelisms but the best one's, the unit that got furthest."""
        found: dict[object, Tried] = {}
        own = {part.unit.split for part in best.parts} | {best.whole.split}
        for tried in self._tried:
            split = tried.candidate.unit.split
            if split not in own and (split not in found or tried.rank > found[split].rank):
                found[split] = tried
        return list(found.values())

    def _choice(self, nodes: NodeClass, *, is_mixed: bool) -> PartChoice:
        """Units on a few of its nodes; where links are slow, on one."""
        found = self._find_best(*self._units(nodes, is_mixed=is_mixed))
        return PartChoice(kinds=(nodes.kind,), nodes=nodes.nodes, num_gpus=nodes.total_gpus, tried=found.tried)

    def _fewest(self, rate: float, *, is_mixed: bool) -> Tried | None:
        """A unit that serves the rate by itself; None: it takes several, or too many GPUs."""
        able = []
        for nodes in self.classes:
            units, ground = self._units(nodes, is_mixed=is_mixed)
            candidates = [self.catalogue.candidate(unit) for unit in units]
            self._num_candidates.append(len(candidates))
            found = find_fewest(
                candidates,
                _once(ground.lay_out),
                self.catalogue.rates_of,
                self._question.request_bytes,
                self._evaluate,
                rate,
                at_a_time=self._at_a_time,
            )
            self._outcomes.append(found)
            if found.best is not None:
                able.append(found.best)
        return min(able, key=lambda tried: tried.candidate.unit.num_gpus, default=None)

    def _units(self, nodes: NodeClass, *, is_mixed: bool) -> tuple[list[Unit], Ground]:
        """All that could be built on a few nodes of a class; where links are slow, on one."""
        most = min(nodes.total_gpus, self._question.total_gpus, _SPANNING_GPUS)
        small = max(UNIT_GPUS, nodes.num_gpus) if most > UNIT_GPUS else most
        if nodes.is_slow:
            most = min(most, nodes.num_gpus)
        ground = self.ground.among(nodes.nodes[: -(-most // nodes.num_gpus)])
        if is_mixed:
            pools = self.catalogue.pools("mixed", nodes.kind, nodes.num_gpus)
            return list(mixed_units(pools, min(small, most))), ground
        prefills, decodes = (self.catalogue.pools(role, nodes.kind, nodes.num_gpus) for role in ("prefill", "decode"))
        units = [
            unit
            for unit in disaggregated_units(prefills, decodes, most)
            if unit.num_gpus <= small or max(pool.num_instances for pool in unit.pools) <= _SPANNING_INSTANCES
        ]
        if self._question.pairs_only:
            units = [unit for unit in units if all(pool.num_instances == 1 for pool in unit.pools)]
        return units, ground

    def _choices_across(self) -> list[PartChoice]:
        """Prompts on one kind of hardware, decoding on another: units on one node of each."""
        choices = []
        fast = [each for each in self.classes if not each.is_slow]
        for first, second in ((one, other) for one in fast for other in fast if one.kind != other.kind):
            prefills = self.catalogue.pools("prefill", first.kind, first.num_gpus)
            decodes = self.catalogue.pools("decode", second.kind, second.num_gpus)
            units = [
                unit
                for unit in disaggregated_units(prefills, decodes, first.num_gpus + second.num_gpus)
                if unit.pools[0].num_gpus <= first.num_gpus and unit.pools[1].num_gpus <= second.num_gpus
            ]
            best = self._find_best(units, self.ground.among((first.nodes[0], second.nodes[0]))).best
            if best is not None:
                of_first, of_second = (pool.num_gpus for pool in best.candidate.unit.pools)
                pairs = min(len(first.nodes), len(second.nodes))
                copies = min(first.num_gpus // of_first, second.num_gpus // of_second) * pairs
                nodes = (*first.nodes[:pairs], *second.nodes[:pairs])
                num_gpus = copies * best.candidate.unit.num_gpus
                kinds = (first.kind, second.kind)
                choices.append(PartChoice(kinds=kinds, nodes=nodes, num_gpus=num_gpus, tried=(best,)))
        return choices

    def _find_best(self, units: Sequence[Unit], ground: Ground) -> Outcome:
        candidates = [self.catalogue.candidate(unit) for unit in units]
        self._num_candidates.append(len(candidates))
        outcome = find_best(
            candidates,
            _once(ground.lay_out),
            self.catalogue.rates_of,
            self._question.request_bytes,
            self._evaluate,
            max_asks=_MAX_ASKS,
            at_a_time=self._at_a_time,
        )
        self._outcomes.append(outcome)
        return outcome


def _once(lay_out: Callable[[Unit], Layout | None]) -> Callable[[Candidate], Layout | None]:
    laid: dict[Unit, Layout | None] = {}

    def found(candidate: Candidate) -> Layout | None:
        if candidate.unit not in laid:
            laid[candidate.unit] = lay_out(candidate.unit)
        return laid[candidate.unit]

    return found
