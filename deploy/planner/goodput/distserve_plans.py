"""DistServe's two placements of a question, with our evaluator in the place of its simulator."""

from collections import Counter
from collections.abc import Sequence
from math import inf

from cluster.latency.hardware import Parallelism
from deploy.planner.goodput.bound import compute_bound, layout_bound
from deploy.planner.goodput.candidates import Catalogue
from deploy.planner.goodput.distserve import DistServePlan, fill_gpus, high_affinity, low_affinity
from deploy.planner.goodput.evaluation import Ask, Evaluate
from deploy.planner.goodput.layout import Ground, Layout, Seated
from deploy.planner.goodput.question import Question
from deploy.planner.goodput.unit import PoolPlan, Role, Unit

_ANY_RATE = 1e6


class DistServe:
    """It takes all nodes for alike: for the kind that most are of. Goodputs are simulated once each."""

    def __init__(self, question: Question, evaluate: Evaluate) -> None:
        self._question, self._evaluate = question, evaluate
        kinds = {name: hardware.name for name, hardware in question.hardware.items()}
        self._kind = Counter(kinds[node.name] for node in question.topology.nodes if node.num_gpus).most_common(1)[0][0]
        self._ground = Ground(question.topology, kinds, question.request_bytes)
        self._nodes = [node for node in question.topology.nodes if kinds[node.name] == self._kind and node.num_gpus]
        self._catalogue = Catalogue(question)
        self.gpus_per_node = min(node.num_gpus for node in self._nodes)
        self.parallelisms = self._catalogue.parallelisms(self._kind, self.gpus_per_node)
        self._phases: dict[tuple[Role, Parallelism], float] = {}
        self._pairs: dict[tuple[Parallelism, Parallelism], float] = {}

    def high(self, rate: float | None = None, num_gpus: int | None = None) -> DistServePlan | None:
        """Algorithm 1, for a rate or for so many GPUs, or all. None: no plan meets the SLOs, or GPUs are too few."""

        def plan_for(rate: float) -> DistServePlan | None:
            phases = (lambda each: self._phase("prefill", each), lambda each: self._phase("decode", each))
            return high_affinity(self.parallelisms, *phases, rate)

        return plan_for(rate) if rate is not None else fill_gpus(plan_for, num_gpus or self._question.total_gpus)

    def low(self, rate: float | None = None) -> DistServePlan | None:
        """Algorithm 2, likewise: as many pairs as nodes have room for."""

        def plan_for(rate: float) -> DistServePlan | None:
            return low_affinity(self.parallelisms, self.gpus_per_node, self._pair, rate)

        self._try_pairs()
        if rate is not None:
            return plan_for(rate)
        one = plan_for(1e-9)
        if one is None:
            return None
        copies = sum(node.num_gpus // one.num_gpus for node in self._nodes)
        copies = min(copies, self._question.total_gpus // one.num_gpus)
        return DistServePlan(prefill=one.prefill, decode=one.decode, num_prefill=copies, num_decode=copies)

    def unit(self, plan: DistServePlan) -> Unit:
        return Unit(
            pools=(
                PoolPlan(role="prefill", parallelism=plan.prefill, num_instances=plan.num_prefill, kind=self._kind),
                PoolPlan(role="decode", parallelism=plan.decode, num_instances=plan.num_decode, kind=self._kind),
            )
        )

    def layout(self, plan: DistServePlan, *, pairs: bool) -> Layout | None:
        """`pairs`: each pair on one node, as Algorithm 2 wants it; else as who knows nothing of links places it.

        That is evenly or, where instances are too large for it, packed.
        """
        unit = self.unit(plan)
        if pairs:
            return self._packed(unit, [[pool.one for pool in unit.pools]] * plan.num_prefill)
        largest_first = sorted(unit.pools, key=lambda pool: -pool.parallelism.num_gpus)
        singles = [[pool.one] for pool in largest_first for _ in range(pool.num_instances)]
        return self._ground.lay_out(unit, label_free=True) or self._packed(unit, singles)

    def _packed(self, unit: Unit, groups: Sequence[Sequence[PoolPlan]]) -> Layout | None:
        """Each group on one node, the first that has room for it. None: there is none."""
        free = {node.name: node.num_gpus for node in self._nodes}
        seats: list[Seated] = []
        numbers: Counter[str] = Counter()

        for group in groups:
            node = next((name for name in free if free[name] >= sum(pool.num_gpus for pool in group)), None)
            if node is None:
                return None
            for pool in group:
                seats.append(Seated(name=f"{pool.role}-{numbers[pool.role]}", pool=pool, node=node))
                numbers[pool.role] += 1
                free[node] -= pool.num_gpus
        used = [name for name in free if any(seat.node == name for seat in seats)]
        return Layout(unit=unit, seats=tuple(seats), topology=self._ground.among(used).topology)

    def _phase(self, role: Role, parallelism: Parallelism) -> float:
        key = role, parallelism
        if key not in self._phases:
            self._phases[key] = self._phase_goodput(role, parallelism)
        return self._phases[key]

    def _phase_goodput(self, role: Role, parallelism: Parallelism) -> float:
        """Of one instance; the other phase costs nothing, wherever it is."""
        pool = PoolPlan(role=role, parallelism=parallelism, kind=self._kind)
        bound = compute_bound(Unit(pools=(pool,)), self._catalogue.rates_of)
        if bound <= 0.0 or bound == inf:  # outputs of one token take no decoding: nothing is there to simulate
            return min(bound, _ANY_RATE)
        others: dict[str, Role] = {"prefill": "decode", "decode": "prefill"}
        other = PoolPlan(role=others[role], parallelism=parallelism, kind=self._kind)
        node = self._nodes[0].name
        seats = tuple(Seated(name=f"{each.role}-0", pool=each, node=node) for each in (pool, other))
        layout = Layout(unit=Unit(pools=(pool, other)), seats=seats, topology=self._ground.among([node]).topology)
        best = max((found / each.num_gpus for (of, each), found in self._phases.items() if of == role), default=0.0)
        return self._goodput(layout, bound, best * pool.num_gpus, role)

    def _try_pairs(self) -> None:
        """Those that promise most first: the others then cost little."""
        pairs = [
            DistServePlan(prefill=prefill, decode=decode, num_prefill=1, num_decode=1)
            for prefill in self.parallelisms
            for decode in self.parallelisms
            if prefill.num_gpus + decode.num_gpus <= self.gpus_per_node
        ]
        estimates = {pair: self._catalogue.candidate(self.unit(pair)).estimate_per_gpu for pair in pairs}
        for pair in sorted(pairs, key=lambda pair: -estimates[pair]):
            self._pair(pair.prefill, pair.decode)

    def _pair(self, prefill: Parallelism, decode: Parallelism) -> float:
        key = prefill, decode
        if key not in self._pairs:
            self._pairs[key] = self._pair_goodput(*key)
        return self._pairs[key]

    def _pair_goodput(self, prefill: Parallelism, decode: Parallelism) -> float:
        one = DistServePlan(prefill=prefill, decode=decode, num_prefill=1, num_decode=1)
        layout = self.layout(one, pairs=True)
        if layout is None:
            return 0.0
        bound = layout_bound(layout, self._catalogue.rates_of, self._question.request_bytes)
        best = max((found / sum(each.num_gpus for each in of) for of, found in self._pairs.items()), default=0.0)
        return self._goodput(layout, bound, best * one.num_gpus)

    def _goodput(self, layout: Layout, bound: float, above: float, phase: Role | None = None) -> float:
        """0 where it is not above what the best so far reaches per GPU: how far below does not matter.

        No more than can be served in the long run: what a short trial finds beyond that would rule out who is better.
        """
        if bound <= above:
            return 0.0
        ask = Ask(layout=layout, above=above, at_most=bound, phase=phase, is_rough=True)
        return min(self._evaluate([ask])[0].rate or 0.0, bound)
