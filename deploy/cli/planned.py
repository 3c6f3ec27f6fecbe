"""What `baton plan` shows of its plans."""

from dataclasses import asdict
from math import ceil
from typing import Any

from rich.console import Console
from rich.table import Table

from deploy.planner.goodput.plans import Plan, Plans
from deploy.planner.goodput.question import Question
from deploy.planner.goodput.runnable import obstacles
from deploy.planner.goodput.unit import Unit
from deploy.planning.bandwidths import Swept, describe_bandwidth
from deploy.planning.planned import Planned, places, summary

_SHOWN_NODES = 16


def show(plans: Plans, planned: Planned, console: Console) -> None:
    question = planned.question
    best = [*summary(plans.best, question), *planned.about()]
    lines = [*best, *_runnable(plans), *_against(plans), *_effort(plans, question)]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(_places(plans.best))
    if plans.lost:
        console.print(_lost(plans))


def show_crossovers(swept: Swept, console: Console) -> None:
    """Of prefill and decode apart, by the bandwidth between nodes."""
    table = Table("between nodes", "per GPU", "best apart", box=None, pad_edge=False)
    for point in swept.points:
        name = str(point.unit) if point.unit else "none meets the SLOs"
        table.add_row(describe_bandwidth(point.bytes_per_s), f"{point.per_gpu:.3g}", name)
    console.print(table)
    for change in swept.changes:
        low, high = (describe_bandwidth(at.bytes_per_s) for at in (change.low, change.high))
        text = f"between {low} and {high} the best changes: {_split(change.low.unit)}, then {_split(change.high.unit)}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    if not swept.changes:
        console.print("roles and parallelisms of the best are the same at every bandwidth", highlight=False)


def _split(unit: Unit | None) -> str:
    return " + ".join(f"{pool.role} {pool.parallelism}" for pool in unit.pools) if unit else "none"


def as_json(plans: Plans, question: Question) -> dict[str, Any]:
    return {
        "best": _plan(plans.best),
        "mixed": plans.mixed and _plan(plans.mixed),
        "disaggregated": plans.disaggregated and _plan(plans.disaggregated),
        "runnable": plans.runnable and _plan(plans.runnable),
        "why_not_runnable": plans.why_not_runnable or None,
        "why_not_mixed": plans.why_not_mixed or None,
        "why_not_disaggregated": plans.why_not_disaggregated or None,
        "lost": [{"unit": str(each.unit), "per_gpu": each.per_gpu or None, "why": each.why} for each in plans.lost],
        "search": asdict(plans.effort),
        "slos": asdict(question.slos),
        "rate": question.rate,
    }


def _plan(plan: Plan) -> dict[str, Any]:
    return {
        "pools": _pools(plan.whole),
        "parts": [{"pools": _pools(part.unit), "copies": part.number} for part in plan.parts],
        "num_gpus": plan.num_gpus,
        "goodput": plan.goodput,
        "goodput_per_gpu": plan.per_gpu,
        "attainment": asdict(plan.attainment),
        "num_simulated_gpus": plan.num_checked_gpus,
        "instances": [
            {"name": seat.name, "node": seat.node, "gpus": seat.gpus, "parallelism": str(seat.pool.parallelism)}
            for seat in plan.layout.seats
        ],
        "baton_up_cannot_run": obstacles(plan.whole),
    }


def _pools(unit: Unit) -> list[dict[str, Any]]:
    return [
        {
            "role": pool.role,
            "tp": pool.parallelism.tp,
            "pp": pool.parallelism.pp,
            "instances": pool.num_instances,
            "hardware": pool.kind,
            "token_budget": pool.token_budget,
        }
        for pool in unit.pools
    ]


def _runnable(plans: Plans) -> list[str]:
    """What `baton up` can run, where the best is not that."""
    found = plans.runnable
    if found is plans.best:
        return []
    if found is None:
        return [f"there is no plan that baton up can run: {plans.why_not_runnable}"]
    return [
        f"the best that baton up can run: {found.whole}, {found.num_gpus} GPUs, {found.goodput:.4g} requests/s, "
        f"{found.per_gpu:.3g} per GPU"
    ]


def _against(plans: Plans) -> list[str]:
    """Whether prefill and decode should be apart, and what that is worth."""
    mixed, apart = plans.mixed, plans.disaggregated
    if mixed is None:
        return [f"no plan of colocated instances: {plans.why_not_mixed}"]
    if apart is None:
        return [f"no plan of prefill and decode apart: {plans.why_not_disaggregated}"]
    winner, loser = (mixed, apart) if plans.best is mixed else (apart, mixed)
    what = "colocated (chunked prefill)" if plans.best is mixed else "prefill and decode apart"
    other = "apart" if plans.best is mixed else "colocated"
    more = winner.per_gpu / loser.per_gpu - 1.0
    return [f"{what} serves {more:.0%} more per GPU than {other}: {loser.whole} gets {loser.per_gpu:.3g} per GPU"]


def _effort(plans: Plans, question: Question) -> list[str]:
    effort, best = plans.effort, plans.best
    line = f"{effort.num_candidates} units compared, {effort.num_tried} simulated"
    if effort.num_pruned:
        line += f"; {effort.num_pruned} could not win, none exceeds {effort.pruned_bound:.3g} per GPU"
    if effort.num_too_small:
        line += f"; {effort.num_too_small} are too small for this rate by their bounds"
    if effort.num_left:
        line += f"; {effort.num_left} were left out for want of time, none exceeds {effort.left_bound:.3g} per GPU"
    bound = effort.plan_bound
    if question.rate is None:
        return [line, f"no plan at all exceeds {bound:.3g} per GPU: {_below(best.per_gpu / bound)}"]
    least = ceil(question.rate / bound)
    return [line, f"no plan at all serves this rate with fewer than {least} GPUs: this one has {best.num_gpus}"]


def _below(share: float) -> str:
    """`share`: of the bound."""
    if share <= 1.0:
        return f"this one is {1.0 - share:.0%} below"
    return f"this one is {share - 1.0:.1%} above, so its simulations were too short to see it, or the bound is off"


def _places(plan: Plan) -> Table:
    """Nodes that hold the same in one row."""
    table = Table("nodes", "hold", box=None, pad_edge=False)
    for held, nodes in places(plan).items():
        shown = ", ".join(nodes[:_SHOWN_NODES])
        table.add_row(shown + (f" and {len(nodes) - _SHOWN_NODES} more" if len(nodes) > _SHOWN_NODES else ""), held)
    return table


def _lost(plans: Plans) -> Table:
    table = Table("others", "per GPU", "why they lost", box=None, pad_edge=False)
    for each in plans.lost:
        table.add_row(str(each.unit), f"{each.per_gpu:.3g}" if each.per_gpu else "-", each.why)
    return table
