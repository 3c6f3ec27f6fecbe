"""The planning of a question at several bandwidths between nodes: where the best plan changes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from deploy.planner.goodput.crossover import (
    ANY_BANDWIDTH,
    NO_BANDWIDTH,
    At,
    Crossover,
    crossovers,
    sweep,
    with_bandwidth,
)
from deploy.planner.goodput.find_plans import Search
from deploy.planner.goodput.plans import Plan
from deploy.planner.goodput.question import Question
from deploy.planning.memory import Memory
from deploy.planning.plan import setting_of
from deploy.planning.routing import Routing
from deploy.planning.workers import Workers

GBIT_PER_S = 1e9 / 8
BANDWIDTHS = (NO_BANDWIDTH, *(gbits * GBIT_PER_S for gbits in (10, 25, 100, 400)), ANY_BANDWIDTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """Of plans with prefill and decode apart: colocated ones do not care. `mixed_per_gpu`: what these get."""

    points: tuple[At, ...]
    mixed_per_gpu: float

    @property
    def changes(self) -> list[Crossover]:
        return crossovers(self.points)


def sweep_bandwidths(
    question: Question,
    mixed: Plan | None,
    *,
    burstiness: float = 1.0,
    simulated_s: float | None = None,
    num_processes: int | None = None,
    routing: Routing | None = None,
    say: Callable[[str], None],
    bandwidths: Sequence[float] = BANDWIDTHS,
) -> Swept:
    """What happens within a node is simulated once for all."""
    setting = setting_of(question, burstiness, simulated_s=simulated_s, routing=routing)
    with Workers(setting, num_processes) as workers:
        evaluate = Memory().beside(workers.evaluate)

        def plan_at(bytes_per_s: float) -> Plan | None:
            say(f"with {describe_bandwidth(bytes_per_s)} between nodes")
            given = replace(question, topology=with_bandwidth(question.topology, bytes_per_s))
            return Search(given, evaluate, at_a_time=workers.num_at_once).best_plan(is_mixed=False)

        points = sweep(plan_at, bandwidths)
    return Swept(points=tuple(points), mixed_per_gpu=mixed.per_gpu if mixed else 0.0)


def describe_bandwidth(bytes_per_s: float) -> str:
    if bytes_per_s <= NO_BANDWIDTH:
        return "nothing"
    if bytes_per_s >= ANY_BANDWIDTH:
        return "any bandwidth"
    return f"{bytes_per_s / GBIT_PER_S:.3g} Gbit/s"
