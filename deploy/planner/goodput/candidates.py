"""All units that could be built of so many GPUs, with what they cannot exceed and what they probably reach."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cluster.latency.hardware import DoesNotFit, Hardware, Parallelism, UnknownParallelism
from deploy.planner.goodput.bound import compute_bound
from deploy.planner.goodput.estimate import Estimate
from deploy.planner.goodput.phase_rates import PhaseRates
from deploy.planner.goodput.question import Floats, Infeasible, Question
from deploy.planner.goodput.unit import PoolPlan, Role, Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """`bound` and `estimate`: requests a second, of the unit, with transfers for nothing."""

    unit: Unit
    bound: float
    estimate: float

    @property
    def bound_per_gpu(self) -> float:
        return self.bound / self.unit.num_gpus

    @property
    def estimate_per_gpu(self) -> float:
        return self.estimate / self.unit.num_gpus


class Catalogue:
    """What the instances of a question can do, each parallelism of each kind worked out once."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._hardware: dict[str, Hardware] = {each.name: each for each in question.hardware.values()}
        self._rates: dict[tuple[str, Parallelism], PhaseRates] = {}
        self.misfits: dict[tuple[str, Parallelism], str] = {}

    def rates_of(self, pool: PoolPlan) -> PhaseRates:
        return self.rates(pool.kind, pool.parallelism)

    def rates(self, kind: str, parallelism: Parallelism) -> PhaseRates:
        key = kind, parallelism
        if key not in self._rates:
            self._rates[key] = PhaseRates(
                hardware=self._hardware[kind],
                parallelism=parallelism,
                lengths=self._question.lengths,
                slos=self._question.slos,
                engine=self._question.engine,
            )
        return self._rates[key]

    def parallelisms(self, kind: str, most_gpus: int) -> list[Parallelism]:
        """Those that fit on one node of so many GPUs, weights and all."""
        return [
            parallelism
            for parallelism in self._hardware[kind].parallelisms()
            if parallelism.num_gpus <= most_gpus
            and (self._question.allow_pp or parallelism.pp == 1)
            and self._fits(kind, parallelism)
        ]

    def _fits(self, kind: str, parallelism: Parallelism) -> bool:
        try:
            return self.rates(kind, parallelism).num_kv_tokens > 0
        except UnknownParallelism:
            return False
        except DoesNotFit as error:
            self.misfits[kind, parallelism] = str(error)
            return False

    def pools(self, role: Role, kind: str, most_gpus: int) -> list[PoolPlan]:
        """One instance of each way to do a role that can do anything at all."""
        found = []
        for parallelism in self.parallelisms(kind, most_gpus):
            for budget in self._question.engine.mixed_budgets if role == "mixed" else (None,):
                pool = PoolPlan(role=role, parallelism=parallelism, kind=kind, token_budget=budget)
                if compute_bound(Unit(pools=(pool,)), self.rates_of) > 0.0:
                    found.append(pool)
        return found

    def candidate(self, unit: Unit) -> Candidate:
        bound = compute_bound(unit, self.rates_of)
        estimate = Estimate(unit, self._question.slos, self.rates_of).goodput(min(bound, 1e6))
        return Candidate(unit=unit, bound=bound, estimate=estimate)

    def check(self, sizes: Mapping[str, int]) -> None:
        """Infeasible, where nothing could do one of the roles. `sizes`: GPUs of the largest node of each kind."""
        if self.why_not(("mixed",), sizes) and (why := self.why_not(("prefill", "decode"), sizes)):
            raise Infeasible(why)

    def why_not(self, roles: Sequence[Role], sizes: Mapping[str, int]) -> str:
        """What keeps all instances from one of these roles; "": nothing does."""
        if all(any(self.pools(role, kind, size) for kind, size in sizes.items()) for role in roles):
            return ""
        return self._why(sizes)

    def _why(self, sizes: Mapping[str, int]) -> str:
        there = [(kind, each) for kind, size in sizes.items() for each in self.parallelisms(kind, size)]
        if not there:
            return self._why_no_room(sizes)
        slos = self._question.slos
        kind, best = max(there, key=lambda each: self.rates(*each).num_kv_tokens)
        longest = _quantile(self._question.lengths.prompts + self._question.lengths.outputs, slos.attainment)
        room = self.rates(kind, best).num_kv_tokens
        if longest > room:
            return (
                f"KV memory: {slos.attainment:.0%} of the requests have up to {longest:.0f} tokens, an instance of "
                f"{best} on {kind} holds {room} ({longest - room:.0f} too many)"
            )
        if slos.ttft_s is not None:
            fastest_s = min(_quantile(self.rates(*each).prefill_s(8192), slos.attainment) for each in there)
            if fastest_s > slos.ttft_s:
                over_s = fastest_s - slos.ttft_s
                return (
                    f"TTFT: of {slos.ttft_s * 1e3:.4g} ms, {slos.attainment:.0%} of the prompts alone take up to "
                    f"{fastest_s * 1e3:.4g} ms on the fastest instance ({over_s * 1e3:.4g} ms too long)"
                )
        step_s = min(self.rates(*each).decode_s(1) for each in there)
        if slos.tpot_s is not None and step_s > slos.tpot_s:
            return (
                f"TPOT: of {slos.tpot_s * 1e3:.4g} ms, one sequence alone takes {step_s * 1e3:.4g} ms a token on the "
                f"fastest instance ({(step_s - slos.tpot_s) * 1e3:.4g} ms too long)"
            )
        return "no instance meets TTFT, TPOT and memory at once, though each of them can be met"

    def _why_no_room(self, sizes: Mapping[str, int]) -> str:
        """Of one instance on all GPUs of a node, as far as that is known."""
        for kind, size in sizes.items():
            for ranks in range(size, 0, -1):
                try:
                    self._hardware[kind].num_kv_tokens(Parallelism(ranks))
                except DoesNotFit as error:
                    return str(error)
                except UnknownParallelism:
                    continue
        return next(iter(self.misfits.values()), "nothing is known of instances that fit on one node")


def _quantile(values: Floats, share: float) -> float:
    """The least value that this share of all do not exceed."""
    return float(np.quantile(values, share, method="inverted_cdf"))


def disaggregated_units(prefills: Sequence[PoolPlan], decodes: Sequence[PoolPlan], most_gpus: int) -> Iterator[Unit]:
    """Every pair of pools in all numbers that fit."""
    for prefill in prefills:
        for decode in decodes:
            for num_prefill in range(1, (most_gpus - decode.num_gpus) // prefill.num_gpus + 1):
                left = most_gpus - num_prefill * prefill.num_gpus
                for num_decode in range(1, left // decode.num_gpus + 1):
                    yield Unit(
                        pools=(
                            replace(prefill, num_instances=num_prefill),
                            replace(decode, num_instances=num_decode),
                        )
                    )


def mixed_units(pools: Sequence[PoolPlan], most_gpus: int) -> Iterator[Unit]:
    for pool in pools:
        for number in range(1, most_gpus // pool.num_gpus + 1):
            yield Unit(pools=(replace(pool, num_instances=number),))
