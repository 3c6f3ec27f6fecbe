"""OPT-13B on four GPUs: what DistServe's own search finds, found under its assumptions; and what can be kept up.

The README of its simulator (github.com/LLMServe/DistServe, simdistserve) has this example: TTFT 200 ms and TPOT 100 ms,
each met by 90 % of 300 requests, the first of which count like all others. It prints 1.56 per GPU for prefill TP2 +
decode TP1, from a bisection of 0 to 5 that ends when less than 0.25 is left: the rate is between 1.56 and 1.72.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from deploy.planner.goodput.candidates import Catalogue, disaggregated_units, mixed_units
from deploy.planner.goodput.layout import Ground, Layout
from deploy.planner.goodput.question import Question
from deploy.planner.goodput.unit import Unit
from deploy.planning.plan import setting_of
from tests.planner.questions import question
from tests.planner.trials import Trials

THEIRS = 1.56, 1.72
NUM_GPUS = 4
SPLIT = "1 × prefill TP2 + 1 × decode TP1"

_NUM_REQUESTS, _NUM_SUSTAINED = 300, 1200
_ROW = "{:<44} {:>14} {:>28}"

Say = Callable[[str], None]


def prove(say: Say) -> bool:
    asked = replace(question("opt-13b", 1, NUM_GPUS, with_call_overhead=True), allow_pp=True)
    catalogue = Catalogue(asked)
    layouts = {str(unit): _laid_out(asked, unit) for unit in _apart(asked, catalogue)}
    setting = setting_of(asked, simulated_s=1e-3)
    theirs = Trials(setting=replace(setting, least_requests=_NUM_REQUESTS, warm_up=0.0), seeds=range(10), is_each=True)
    kept_up = Trials(setting=replace(setting, least_requests=_NUM_SUSTAINED), seeds=range(6))

    found = theirs.goodputs(layouts[SPLIT], THEIRS[0] * 3)
    say(_ROW.format(f"apart, of {_NUM_REQUESTS} requests", "per GPU", "both limits met at that rate"))
    say(_ROW.format(SPLIT, str(found), f"{asked.slos.attainment:.1%}"))
    is_best = True
    for name, layout in layouts.items():
        if name != SPLIT:
            at_that = theirs.attainments(layout, found.mean * layout.unit.num_gpus)
            is_best &= at_that.mean < asked.slos.attainment
            say(_ROW.format(name, "less" if at_that.mean < asked.slos.attainment else "MORE", f"{at_that.mean:.1%}"))

    say(_ROW.format(f"kept up, of {_NUM_SUSTAINED} requests", "per GPU", ""))
    ours = kept_up.goodputs(layouts[SPLIT], found.mean * 3)
    say(_ROW.format(SPLIT, str(ours), ""))
    mixed = _best_mixed(asked, catalogue)
    colocated = kept_up.goodputs(_laid_out(asked, mixed), 2.5 * mixed.num_gpus)
    say(_ROW.format(str(mixed), str(colocated), f"{colocated.over(ours)} times as much"))

    is_theirs = THEIRS[0] - 2 * found.standard_error <= found.mean <= THEIRS[1] + 2 * found.standard_error
    say(f"DistServe's search finds {THEIRS[0]} to {THEIRS[1]}: {'so do we' if is_theirs else 'WE DO NOT'}")
    return is_best and is_theirs


def _apart(asked: Question, catalogue: Catalogue) -> Iterator[Unit]:
    kind = next(iter(asked.hardware.values())).name
    return disaggregated_units(
        catalogue.pools("prefill", kind, NUM_GPUS), catalogue.pools("decode", kind, NUM_GPUS), NUM_GPUS
    )


def _best_mixed(asked: Question, catalogue: Catalogue) -> Unit:
    """By the estimate, of those that use all GPUs."""
    kind = next(iter(asked.hardware.values())).name
    units = mixed_units(catalogue.pools("mixed", kind, NUM_GPUS), NUM_GPUS)
    return max(
        (unit for unit in units if unit.num_gpus == NUM_GPUS), key=lambda unit: catalogue.candidate(unit).estimate
    )


def _laid_out(asked: Question, unit: Unit) -> Layout:
    kinds = {name: hardware.name for name, hardware in asked.hardware.items()}
    layout = Ground(asked.topology, kinds, asked.request_bytes).lay_out(unit)
    assert layout is not None, "it is no larger than the node"
    return layout
