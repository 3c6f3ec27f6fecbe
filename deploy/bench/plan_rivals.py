"""The plans that ours is compared with: DistServe's two, and instances that do both phases, by chunks."""

from collections.abc import Mapping, Sequence

import numpy as np

from cluster.latency.hardware import Parallelism
from deploy.planner.goodput.best_first import find_best
from deploy.planner.goodput.bound import compute_bound
from deploy.planner.goodput.distserve import DistServePlan, fill_gpus, high_affinity
from deploy.planner.goodput.evaluation import Ask, Evaluate
from deploy.planner.goodput.find_plans import Search
from deploy.planner.goodput.layout import Layout, Seated, sub_topology
from deploy.planner.goodput.question import Question
from deploy.planner.goodput.unit import PoolPlan, Role, Unit, disaggregated
from deploy.planner.placement import NoRoom, PoolNeeds, Traffic
from deploy.planner.planner import Planner


class Rivals:
    """On nodes of one kind, all with as many GPUs."""

    def __init__(self, question: Question, search: Search, evaluate: Evaluate) -> None:
        self._question, self._search, self._evaluate = question, search, evaluate
        self._catalogue, self._topology = search.catalogue, question.topology
        self._kind = next(iter(question.hardware.values())).name
        self._node_gpus = self._topology.nodes[0].num_gpus

    # DistServe's algorithm 1

    def high(self) -> Layout | None:
        """Each phase planned by itself, as if KV moved for nothing; put on nodes evenly, in the order listed."""
        goodputs = {role: self._phase_goodputs(role) for role in ("prefill", "decode")}

        def plan_for(rate: float) -> DistServePlan | None:
            return high_affinity(
                self._parallelisms(), goodputs["prefill"].__getitem__, goodputs["decode"].__getitem__, rate
            )

        for num_gpus in range(self._question.total_gpus, 0, -1):  # until it can be cut into nodes
            plan = fill_gpus(plan_for, num_gpus)
            if plan is not None and (layout := self._evenly(self._unit(plan))) is not None:
                return layout
        return None

    def _parallelisms(self) -> list[Parallelism]:
        return self._catalogue.parallelisms(self._kind, self._node_gpus)

    def _phase_goodputs(self, phase: Role) -> dict[Parallelism, float]:
        asks = []
        for parallelism in self._parallelisms():
            counting = self._pool(phase, parallelism)
            other = self._pool("decode" if phase == "prefill" else "prefill", parallelism)
            pair = (counting, other) if phase == "prefill" else (other, counting)
            bound = compute_bound(Unit(pools=(counting,)), self._catalogue.rates_of)
            asks.append(Ask(layout=self._on_nodes(disaggregated(*pair), 1, 1), at_most=bound, phase=phase))
        able = [ask for ask in asks if ask.at_most > 0.0]
        answers = dict(zip(map(id, able), self._evaluate(able), strict=True))
        rates = [answers[id(ask)].rate or 0.0 if id(ask) in answers else 0.0 for ask in asks]
        return dict(zip(self._parallelisms(), rates, strict=True))

    def _evenly(self, unit: Unit) -> Layout | None:
        """As one who knows nothing of links places it. None: there is no room."""
        needs = [
            PoolNeeds(
                name=pool.role,
                role=pool.role,
                num_instances=pool.num_instances,
                num_gpus=float(pool.parallelism.num_gpus),
            )
            for pool in unit.pools
        ]
        traffic = Traffic(request_bytes=self._question.request_bytes)
        try:
            planner = Planner(needs, self._topology, traffic, np.random.default_rng(0))
            placement = planner.plan(with_worst=False).label_free
        except NoRoom:
            return None
        if placement is None:
            return None
        pools = {pool.role: pool.one for pool in unit.pools}
        return self._layout(
            unit,
            [
                Seated(name=it.instance, pool=pools[_role(it.instance, pools)], node=it.node, gpus=it.gpus)
                for it in placement.instances
            ],
        )

    # DistServe's algorithm 2

    def low(self) -> Layout | None:
        """The best pair of one instance of each phase that fits on a node, on each node as often as there is room."""
        pairs = [
            disaggregated(self._pool("prefill", prefill), self._pool("decode", decode))
            for prefill in self._parallelisms()
            for decode in self._parallelisms()
            if prefill.num_gpus + decode.num_gpus <= self._node_gpus
        ]
        outcome = find_best(
            [self._catalogue.candidate(pair) for pair in pairs],
            lambda candidate: self._on_nodes(candidate.unit, 1, 1),
            self._catalogue.rates_of,
            self._question.request_bytes,
            self._evaluate,
            max_asks=len(pairs),
        )
        if outcome.best is None:
            return None
        pair = outcome.best.candidate.unit
        return self._on_nodes(pair, len(self._topology), self._node_gpus // pair.num_gpus)

    # What both are made of

    def _pool(self, role: Role, parallelism: Parallelism, number: int = 1) -> PoolPlan:
        return PoolPlan(role=role, parallelism=parallelism, num_instances=number, kind=self._kind)

    def _unit(self, plan: DistServePlan) -> Unit:
        return disaggregated(
            self._pool("prefill", plan.prefill, plan.num_prefill), self._pool("decode", plan.decode, plan.num_decode)
        )

    def _on_nodes(self, pair: Unit, num_nodes: int, copies: int) -> Layout:
        """So many copies of a pair on each of the first nodes."""
        seats: list[Seated] = []
        for node in self._topology.nodes[:num_nodes]:
            gpu = 0
            for _ in range(copies):
                for pool in pair.pools:
                    number = sum(seat.pool.role == pool.role for seat in seats)
                    gpus = tuple(range(gpu, gpu := gpu + pool.parallelism.num_gpus))
                    seats.append(Seated(name=f"{pool.role}-{number}", pool=pool, node=node.name, gpus=gpus))
        return self._layout(pair.times(num_nodes * copies), seats)

    def _layout(self, unit: Unit, seats: Sequence[Seated]) -> Layout:
        used = {seat.node for seat in seats}
        names = [node.name for node in self._topology.nodes if node.name in used]
        return Layout(unit=unit, seats=tuple(seats), topology=sub_topology(self._topology, names))


def _role(instance: str, pools: Mapping[Role, PoolPlan]) -> Role:
    return next(role for role in pools if instance.startswith(f"{role}-"))
