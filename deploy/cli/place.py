"""`baton place`: where a deployment's instances should run, by what the links between the nodes give."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.durations import format_duration
from deploy.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from cluster.spec.deployment import Deployment
    from cluster.topology.topology import Topology
    from deploy.planner.planner import Plan, Planner

_SHOWN_PAIRS = 24


def add_to(app: typer.Typer) -> None:
    app.command()(place)


def place(
    file: Annotated[Path, typer.Argument(help="The deployment, such as deploy/local.yaml.")],
    topology: Annotated[Path | None, typer.Option(help="Nodes and links, YAML or JSON; else as measured.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show the predicted time from node to node.")] = False,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Of a request, as expected.")] = 2048,
    in_flight: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Transfers that a prefill instance has under way on the average.")
    ] = 1.0,
) -> None:
    """Show which instance should run on which node and GPUs, and what other assignments would have cost."""
    from rich.console import Console

    from cluster.spec.load import load_deployment
    from deploy.needs import request_bytes

    deployment = load_deployment(file)
    network = read_topology_file(topology) if topology else measured_topology(deployment)
    num_bytes = request_bytes(deployment, prompt_tokens)
    planner, plan = _plan(file, deployment, network, num_bytes, in_flight)
    console = Console()
    console.print(_assignment(deployment, plan))
    if explain:
        console.print(_pairs(planner, plan, network))
    for line in _verdict(plan, num_bytes, prompt_tokens):
        console.print(line, highlight=False, soft_wrap=True)


def measured_topology(deployment: "Deployment") -> "Topology":
    """As it is where the deployment runs; else that of Ray's nodes, probed now."""
    from cluster.links.config import LinkConfig
    from deploy.planner.assumed import assume
    from deploy.preconditions import ray_address
    from deploy.probing.survey import explain
    from deploy.ray_session import RaySession
    from deploy.records import find_record

    record = find_record(deployment.metadata.name)
    address = record.ray_address if record else ray_address()
    if address is None:
        raise InputError(
            "which nodes there are, and what their links give, has to be said with --topology FILE "
            "(without one, the deployment has to run, or RAY_ADDRESS to say which nodes are to be probed)"
        )
    with RaySession(address) as session:
        controller = session.find_controller(deployment.metadata.name)
        if controller is not None:
            return controller.topology()
        links = LinkConfig(**deployment.spec.links.model_dump())
        survey = session.survey(deployment.spec.placement.probe_budget_s, _say, links)
    for line in explain(survey.unreachable):
        _say(line)
    broken = [(each.source, each.target) for each in survey.unreachable]
    return assume(survey.topology.nodes, [survey.topology], broken)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def read_topology_file(file: Path) -> "Topology":
    """SpecError for what cannot be read, or is no topology."""
    from cluster.topology.read import read_topology
    from deploy.text_file import read_text

    return read_topology(read_text(file), str(file))


def _plan(
    file: Path, deployment: "Deployment", topology: "Topology", num_bytes: int, in_flight: float
) -> "tuple[Planner, Plan]":
    """SpecError where a pool fits nowhere, with its place in the deployment's file."""
    import numpy as np

    from deploy.needs import needs_of
    from deploy.no_room import spec_error
    from deploy.planner.placement import NoRoom, Traffic
    from deploy.planner.planner import Planner

    traffic = Traffic(request_bytes=num_bytes, num_in_flight=in_flight)
    try:
        planner = Planner(needs_of(deployment), topology, traffic, np.random.default_rng(0))
        return planner, planner.plan()
    except NoRoom as error:
        raise spec_error(file, deployment, error) from error


def _assignment(deployment: "Deployment", plan: "Plan") -> "Table":
    from rich.table import Table

    roles = {name: pool.role for pool in deployment.spec.pools for name in pool.instance_names()}
    table = Table("instance", "role", "node", "GPUs as planned", box=None, pad_edge=False)
    for placed in plan.chosen.instances:
        gpus = ", ".join(map(str, placed.gpus)) or "-"
        table.add_row(placed.instance, roles[placed.instance], placed.node, gpus)
    return table


def _pairs(planner: "Planner", plan: "Plan", topology: "Topology") -> "Table":
    """From node to node, the slowest first: alone, and among the flows that are expected beside it."""
    import numpy as np
    from rich.table import Table

    counts = plan.chosen.counts
    rows, columns = (np.nonzero(role @ counts)[0] for role in (planner.cost.prefills, planner.cost.decodes))
    shared_s, alone_s = planner.cost.times_s(counts, rows, columns), planner.cost.alone_s()
    table = Table("from", "to", "alone", "among others", title="Predicted transfers", box=None, pad_edge=False)
    for place in np.argsort(-shared_s, axis=None, kind="stable")[:_SHOWN_PAIRS].tolist():
        row, column = divmod(place, len(columns))
        source, target = int(rows[row]), int(columns[column])
        names = topology.nodes[source].name, topology.nodes[target].name
        table.add_row(*names, format_duration(alone_s[source, target]), format_duration(shared_s[row, column]))
    if shared_s.size > _SHOWN_PAIRS:
        table.caption = f"the slowest {_SHOWN_PAIRS} of {shared_s.size}"
    return table


def _verdict(plan: "Plan", num_bytes: int, prompt_tokens: int) -> list[str]:
    from cluster.spec.quantity import format_bytes

    chosen, worst = plan.chosen, plan.worst
    how = "the best there is" if chosen.is_exact else f"the best is no more than {chosen.gap:.1%} below"
    bound = "" if chosen.is_exact else f" (lower bound {format_duration(chosen.lower_bound_s)})"
    lines = [
        f"{prompt_tokens} prompt tokens are {format_bytes(num_bytes)} of KV; predicted mean from prefill to decode:",
        f"  this assignment      {format_duration(chosen.cost_s):>10}   {how}{bound}",
    ]
    if plan.label_free:
        lines.append(
            f"  not knowing links    {format_duration(plan.label_free.cost_s):>10}   spread evenly, in the order listed"
        )
    found = "the worst there is" if worst.is_exact else "the worst that was found"
    return [*lines, f"  worst                {format_duration(worst.cost_s):>10}   {found}"]
