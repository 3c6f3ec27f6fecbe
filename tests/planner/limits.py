"""DistServe's two algorithms as the limits of our search, 4 nodes of 8 A100s, the simulator as evaluator of all."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from deploy.bench.plan_case_run import high_layout, low_layout
from deploy.planner.goodput.best_first import RESOLUTION
from deploy.planner.goodput.bound import layout_bound
from deploy.planner.goodput.candidates import Catalogue
from deploy.planner.goodput.crossover import ANY_BANDWIDTH, NO_BANDWIDTH
from deploy.planner.goodput.find_plans import Search
from deploy.planner.goodput.layout import Layout
from deploy.planner.goodput.question import Question
from deploy.planning.memory import Memory
from deploy.planning.plan import setting_of
from deploy.planning.workers import Workers
from tests.planner.questions import question
from tests.planner.trials import Trials

_SEEDS = (500, 501, 502)
_INTERVAL_S = 90.0  # in less, more is served than can be kept up

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """`pairs`: one prefill instance for each decode instance, as Algorithm 2 has them."""

    name: str
    between: float
    pairs: bool


LIMITS = (
    Limit(name="any bandwidth, Algorithm 1", between=ANY_BANDWIDTH, pairs=False),
    Limit(name="no bandwidth, Algorithm 2", between=NO_BANDWIDTH, pairs=True),
)


def prove(say: Say, model: str) -> bool:
    hold = [_is_theirs(say, model, limit) for limit in LIMITS]
    return all(hold)


def _is_theirs(say: Say, model: str, limit: Limit) -> bool:
    asked = replace(question(model, 4, 8, between=limit.between), pairs_only=limit.pairs)
    say(f"{model.upper()}, {limit.name}")
    with Workers(setting_of(asked)) as workers:
        evaluate = Memory().beside(workers.evaluate)
        plan = Search(asked, evaluate).best_plan(is_mixed=False)
        theirs = (low_layout if limit.pairs else high_layout)(asked, evaluate)
    if plan is None or theirs is None:
        say("  NO PLAN")
        return False
    ours, is_kept = plan.layout, not limit.pairs or _sends_nothing(plan.layout)
    for whose, layout in (("ours", ours), ("theirs", theirs)):
        say(f"  {whose:<7} {layout.unit!s:<40} {_placed(layout)}")
    if not is_kept:
        say("  REQUESTS LEAVE THEIR NODES")
    if ours.unit == theirs.unit and ours.per_node() == theirs.per_node():
        say("  the same plan, parallelisms, numbers and places")
        return is_kept
    return _is_no_worse(say, asked, ours, theirs) and is_kept


def _is_no_worse(say: Say, asked: Question, ours: Layout, theirs: Layout) -> bool:
    """Within what the search resolves and twice the noise, with seeds that no search has seen."""
    trials = Trials(setting=replace(setting_of(asked), interval_s=_INTERVAL_S), seeds=_SEEDS)
    rates_of = Catalogue(asked).rates_of
    found = [
        trials.goodputs(layout, 0.9 * layout_bound(layout, rates_of, asked.request_bytes)) for layout in (ours, theirs)
    ]
    ratio = found[0].over(found[1])
    is_no_worse = ratio.mean + 2 * ratio.standard_error >= 1.0 - RESOLUTION
    same = "the same" if ours.unit.split == theirs.unit.split else "OTHER"
    verdict = "no worse" if is_no_worse else "WORSE"
    say(f"  {same} parallelisms; per GPU {found[0]} against {found[1]}, ratio {ratio}: {verdict}")
    return is_no_worse


def _sends_nothing(layout: Layout) -> bool:
    """Whoever prefills has somebody who decodes beside it, and the other way round."""
    return all({pool.role for pool in held} == {"prefill", "decode"} for held in layout.per_node().values())


def _placed(layout: Layout) -> str:
    """Such as "n0 n1: 4p+4d": how many instances of each phase a node holds."""
    found: dict[str, list[str]] = {}
    for node, held in layout.per_node().items():
        counts = {role: sum(n for pool, n in held.items() if pool.role == role) for role in ("prefill", "decode")}
        found.setdefault("+".join(f"{n}{role[0]}" for role, n in counts.items() if n), []).append(node)
    return "; ".join(f"{' '.join(nodes)}: {held}" for held, nodes in found.items())
