"""What no unit can exceed, in closed form, against what long simulations keep up: nothing is cut to the bound here.

A queue that grows slowly may not be seen in a simulation: what exceeds its bound is asked again with four times the
requests.
"""

from collections.abc import Callable
from dataclasses import replace

from cluster.latency.hardware import Parallelism
from deploy.planner.goodput.bound import layout_bound
from deploy.planner.goodput.candidates import Catalogue
from deploy.planner.goodput.layout import Ground, Layout
from deploy.planner.goodput.unit import PoolPlan, Unit
from deploy.planning.plan import setting_of
from tests.planner.questions import question
from tests.planner.trials import Trials

_NUM_REQUESTS = 2400
_LONGER = 4.0
_ROW = "{:<52} {:>8} {:>14} {:>8}"

Say = Callable[[str], None]


def prove(say: Say) -> bool:
    asked = question("opt-13b", 1, 8)
    kind = next(iter(asked.hardware.values())).name
    catalogue, ground = Catalogue(asked), Ground(asked.topology, {"n0": kind}, asked.request_bytes)
    trials = Trials(setting=replace(setting_of(asked), least_requests=_NUM_REQUESTS), seeds=(700, 701))
    say(_ROW.format(f"OPT-13B, kept up by {_NUM_REQUESTS} requests, per GPU", "bound", "simulated", "share"))
    are_bounds = True
    for unit in _units(kind):
        layout = ground.lay_out(unit)
        assert layout is not None, "it is no larger than the node"
        bound = layout_bound(layout, catalogue.rates_of, asked.request_bytes)
        is_bound = _is_within(say, trials, layout, bound) or _is_within(say, trials.longer(_LONGER), layout, bound)
        are_bounds &= is_bound
    return are_bounds


def _is_within(say: Say, trials: Trials, layout: Layout, bound: float) -> bool:
    found, num_gpus = trials.goodputs(layout, 0.9 * bound), layout.unit.num_gpus
    is_within = found.mean - 2 * found.standard_error <= bound / num_gpus
    name = str(layout.unit) if is_within else f"{layout.unit}: MORE, so with more requests:"
    say(_ROW.format(name, f"{bound / num_gpus:.3g}", str(found), f"{found.mean * num_gpus / bound:.0%}"))
    return is_within


def _units(kind: str) -> list[Unit]:
    """Where prompts bind, where decoding does, and both in one."""

    def pool(role: str, tp: int, number: int, budget: int | None = None) -> PoolPlan:
        return PoolPlan(
            role=role,  # type: ignore[arg-type]
            parallelism=Parallelism(tp),
            num_instances=number,
            kind=kind,
            token_budget=budget,
        )

    return [
        Unit(pools=(pool("prefill", 2, 1), pool("decode", 1, 1))),
        Unit(pools=(pool("prefill", 2, 3), pool("decode", 1, 1))),
        Unit(pools=(pool("prefill", 4, 1), pool("decode", 2, 1))),
        Unit(pools=(pool("mixed", 2, 2, 2048),)),
        Unit(pools=(pool("mixed", 4, 1, 1024),)),
    ]
