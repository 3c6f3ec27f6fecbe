"""The whole search: the best unit for each class of nodes, then the cluster full of copies, then a check of that."""

from collections.abc import Callable, Sequence

from deploy.planner.goodput.best_first import Outcome, Tried, find_best
from deploy.planner.goodput.candidates import Candidate, Catalogue, disaggregated_units, mixed_units
from deploy.planner.goodput.check import Check, Say
from deploy.planner.goodput.evaluation import Evaluate
from deploy.planner.goodput.fewest import find_fewest
from deploy.planner.goodput.layout import Ground, Layout
from deploy.planner.goodput.node_classes import NodeClass, node_classes
from deploy.planner.goodput.plans import Effort, Plan, Plans, Scored
from deploy.planner.goodput.question import Infeasible, Question
from deploy.planner.goodput.unit import Unit
from deploy.planner.goodput.whole import Part
from deploy.planner.goodput.why import describe, why_lost

UNIT_GPUS = 8
"""Units of up to so many GPUs are searched; larger clusters are filled with copies of the best."""

_SPANNING_GPUS = 16
_SPANNING_INSTANCES = 2  # of a role in a larger unit, which lies across nodes
_MAX_ASKS = 16  # units of one sort on one class of nodes that are simulated
_NUM_LOST = 4


def find_plans(question: Question, evaluate: Evaluate, say: Say = lambda _: None) -> Plans:
    """Infeasible, where nothing meets the SLOs, or the rate."""
    search = Search(question, evaluate, say)
    disaggregated, mixed = (search.best_plan(is_mixed=is_mixed) for is_mixed in (False, True))
    return search.plans(disaggregated, mixed)


class Search:
    def __init__(self, question: Question, evaluate: Evaluate, say: Say = lambda _: None) -> None:
        self._question, self._evaluate, self._say = question, evaluate, say
        kinds = {name: hardware.name for name, hardware in question.hardware.items()}
        self.catalogue = Catalogue(question)
        self.ground = Ground(question.topology, kinds, question.request_bytes)
        self.classes = node_classes(question.topology, kinds)
        self.catalogue.check({each.kind: each.num_gpus for each in self.classes})
        self._check = Check(question, self.ground, self.catalogue, evaluate, say)
        self._num_candidates = 0
        self._outcomes: list[Outcome] = []

    def estimate_on_a_node(self) -> float:
        """Requests a second that one node of the most usual class serves, about: in closed form."""
        nodes = self.classes[0]
        prefills, decodes = (self.catalogue.pools(role, nodes.kind, nodes.num_gpus) for role in ("prefill", "decode"))
        pairs = [Unit(pools=(one, other)) for one in prefills for other in decodes]
        best = max((self.catalogue.candidate(unit).estimate_per_gpu for unit in pairs), default=0.0)
        return best * nodes.num_gpus

    def best_plan(self, *, is_mixed: bool) -> Plan | None:
        """None: none meets the SLOs, or the rate."""
        self._say("colocated instances" if is_mixed else "prefill and decode instances")
        rate = self._question.rate
        if rate is not None and (few := self._fewest(rate, is_mixed=is_mixed)) is not None:
            return self._check.as_plan(few)
        parts = [part for each in self.classes if (part := self._best_part(each, is_mixed=is_mixed)) is not None]
        if not is_mixed:
            parts += self._parts_across()
        if not parts:
            return None
        return self._check.most(parts) if rate is None else self._check.for_rate(parts, rate)

    def plans(self, disaggregated: Plan | None, mixed: Plan | None) -> Plans:
        """Infeasible, when there is neither."""
        there = [plan for plan in (disaggregated, mixed) if plan is not None]
        if not there:
            raise Infeasible(self._why_none())
        if self._question.rate is None:
            best = max(there, key=lambda plan: plan.per_gpu)
        else:
            best = min(there, key=lambda plan: (plan.num_gpus, -plan.goodput))
        top = max(tried.per_gpu for tried in self._tried)
        losers = sorted(self._nearest_of_each_split(best), key=lambda tried: tried.rank, reverse=True)
        return Plans(
            best=best,
            mixed=mixed,
            disaggregated=disaggregated,
            lost=tuple(why_lost(tried, top, self._question.slos) for tried in losers[:_NUM_LOST]),
            scored=tuple(
                Scored(unit=each.candidate.unit, per_gpu=each.per_gpu, bound_per_gpu=each.bound_per_gpu)
                for each in self._tried
            ),
            effort=self._effort(),
        )

    @property
    def _tried(self) -> list[Tried]:
        return [tried for outcome in self._outcomes for tried in outcome.tried]

    def _effort(self) -> Effort:
        return Effort(
            num_candidates=self._num_candidates,
            num_tried=len(self._tried),
            num_pruned=sum(outcome.num_pruned for outcome in self._outcomes),
            pruned_bound=max(outcome.pruned_bound for outcome in self._outcomes),
            num_left=sum(outcome.num_left for outcome in self._outcomes),
            left_bound=max(outcome.left_bound for outcome in self._outcomes),
        )

    def _nearest_of_each_split(self, best: Plan) -> list[Tried]:
        """Of each choice of roles and parallelisms but the best one's, the unit that got furthest."""
        found: dict[object, Tried] = {}
        for tried in self._tried:
            split = tried.candidate.unit.split
            if split != best.unit.split and (split not in found or tried.rank > found[split].rank):
                found[split] = tried
        return list(found.values())

    def _why_none(self) -> str:
        """Of what came nearest, which limit was missed."""
        question = self._question
        able = [each for each in self._tried if each.answer.rate]
        if able and question.rate is not None:
            most = max(each.per_gpu for each in able) * question.total_gpus
            return (
                f"{question.rate:g} requests a second are too many: {question.total_gpus} GPUs serve about {most:.3g}"
            )
        if not self._tried:
            return "no unit has room on these nodes"
        nearest = max(self._tried, key=lambda each: each.rank)
        missed = describe(nearest.answer.attainment, question.slos)
        return (
            f"no deployment meets the SLOs for {question.slos.attainment:.0%} of the requests, however few come: "
            f"with {nearest.candidate.unit}, {missed}"
        )

    def _best_part(self, nodes: NodeClass, *, is_mixed: bool) -> Part | None:
        """The best unit on a few of its nodes; where links are slow, on one."""
        best = self._find_best(*self._units(nodes, is_mixed=is_mixed))
        return None if best is None else _part(best, nodes.nodes, nodes.total_gpus)

    def _fewest(self, rate: float, *, is_mixed: bool) -> Tried | None:
        """A unit that serves the rate by itself; None: it takes several, or too many GPUs."""
        able = []
        for nodes in self.classes:
            units, ground = self._units(nodes, is_mixed=is_mixed)
            candidates = [self.catalogue.candidate(unit) for unit in units]
            self._num_candidates += len(candidates)
            found = find_fewest(
                candidates,
                _once(ground.lay_out),
                self.catalogue.rates_of,
                self._question.request_bytes,
                self._evaluate,
                rate,
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

    def _parts_across(self) -> list[Part]:
        """Prompts on one kind of hardware, decoding on another: units on one node of each."""
        parts = []
        fast = [each for each in self.classes if not each.is_slow]
        for first, second in ((one, other) for one in fast for other in fast if one.kind != other.kind):
            prefills = self.catalogue.pools("prefill", first.kind, first.num_gpus)
            decodes = self.catalogue.pools("decode", second.kind, second.num_gpus)
            units = [
                unit
                for unit in disaggregated_units(prefills, decodes, first.num_gpus + second.num_gpus)
                if unit.pools[0].num_gpus <= first.num_gpus and unit.pools[1].num_gpus <= second.num_gpus
            ]
            best = self._find_best(units, self.ground.among((first.nodes[0], second.nodes[0])))
            if best is not None:
                of_first, of_second = (pool.num_gpus for pool in best.candidate.unit.pools)
                pairs = min(len(first.nodes), len(second.nodes))
                copies = min(first.num_gpus // of_first, second.num_gpus // of_second) * pairs
                nodes = (*first.nodes[:pairs], *second.nodes[:pairs])
                parts.append(_part(best, nodes, copies * best.candidate.unit.num_gpus))
        return parts

    def _find_best(self, units: Sequence[Unit], ground: Ground) -> Tried | None:
        candidates = [self.catalogue.candidate(unit) for unit in units]
        self._num_candidates += len(candidates)
        outcome = find_best(
            candidates,
            _once(ground.lay_out),
            self.catalogue.rates_of,
            self._question.request_bytes,
            self._evaluate,
            max_asks=_MAX_ASKS,
        )
        self._outcomes.append(outcome)
        return outcome.best


def _part(best: Tried, nodes: tuple[str, ...], num_gpus: int) -> Part:
    return Part(unit=best.candidate.unit, goodput=best.answer.rate or 0.0, nodes=nodes, num_gpus=num_gpus)


def _once(lay_out: Callable[[Unit], Layout | None]) -> Callable[[Candidate], Layout | None]:
    laid: dict[Unit, Layout | None] = {}

    def found(candidate: Candidate) -> Layout | None:
        if candidate.unit not in laid:
            laid[candidate.unit] = lay_out(candidate.unit)
        return laid[candidate.unit]

    return found
