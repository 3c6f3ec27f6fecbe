"""`baton probe`: what every link gives, measured now; as a table, as a picture, and as a file to place by."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.cli.talk import Address

if TYPE_CHECKING:
    from cluster.pb import baton_pb2

_RAY_BUDGET_S = 60.0


def add_to(app: typer.Typer) -> None:
    app.command()(probe)


def probe(
    name: Annotated[str | None, typer.Argument(help="A deployment. Default: the only one that runs here.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all of it there; - is stdout.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw bandwidths and latencies into this PNG.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write a topology file, as `baton place --topology` reads.")] = None,
    budget: Annotated[
        float | None,
        typer.Option(min=0.05, max=3600.0, help="Seconds for each link of a deployment, or for a whole Ray cluster."),
    ] = None,
    address: Address = None,
) -> None:
    """Measure the links between the nodes of a deployment or, when none runs, of the Ray cluster at RAY_ADDRESS."""
    from deploy.preconditions import ray_address
    from deploy.records import find_record

    if plot is not None:
        from deploy.heat_map import require_matplotlib

        require_matplotlib()  # before anything is measured
    is_deployment = bool(address or name or find_record(None))
    ray = None if is_deployment else ray_address()
    found = _of_ray(ray, budget) if ray else _of_deployment(name, address, budget)
    _show(found, is_quiet=json_file == Path("-"))
    if json_file is not None:
        _write_json(found, json_file)
    if plot is not None:
        _write_plot(found, plot)
    if save is not None:
        _save(found, save)


def _of_deployment(name: str | None, address: str | None, budget_s: float | None) -> "baton_pb2.ProbeProgress":
    from cluster.pb import baton_pb2
    from cluster.spec.quantity import format_count
    from deploy.client import connect, find_address, until_silent
    from deploy.errors import DeployError

    found: baton_pb2.ProbeProgress | None = None
    shown = None
    with connect(find_address(name, address)) as stub:
        for found in until_silent(stub.Probe(baton_pb2.ProbeRequest(budget_s=budget_s or 0.0))):
            if found.num_done != shown:
                shown = found.num_done
                _say(f"{shown} of {format_count(found.num_links, 'link')} measured")
    if found is None or not found.done:
        raise DeployError("the deployment ended before all links were measured")
    return found


def _of_ray(address: str, budget_s: float | None) -> "baton_pb2.ProbeProgress":
    from deploy.live_topology import progress_of
    from deploy.ray_session import RaySession

    with RaySession(address) as session:
        return progress_of(session.survey(budget_s or _RAY_BUDGET_S, _say))


def _say(text: str) -> None:
    """Beside the table, which is what stdout is for."""
    print(text, file=sys.stderr, flush=True)


def _show(found: "baton_pb2.ProbeProgress", *, is_quiet: bool) -> None:
    from rich.console import Console

    from deploy.cli.links import matrix, summary, table

    if is_quiet:
        return
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table(found.links))
    if shown := matrix(found.nodes, found.links):
        console.print(shown)
    for line in summary(found.nodes, found.links):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _write_json(found: "baton_pb2.ProbeProgress", file: Path) -> None:
    from google.protobuf.json_format import MessageToJson

    text = MessageToJson(found, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    if file == Path("-"):
        print(text)
    else:
        file.write_text(text + "\n")


def _write_plot(found: "baton_pb2.ProbeProgress", file: Path) -> None:
    from deploy.cli.links import between
    from deploy.heat_map import write_heat_map

    nodes = [node.node for node in found.nodes]
    write_heat_map(file, between(len(found.links), len(nodes)), nodes, found.links)


def _save(found: "baton_pb2.ProbeProgress", file: Path) -> None:
    """Saved in any case; what keeps it from being read back is said at once."""
    from cluster.spec.problem import SpecError
    from cluster.topology.read import read_topology
    from cluster.topology.write import format_topology
    from deploy.live_topology import topology_of

    text = format_topology(topology_of(found.nodes, found.links))
    file.write_text(text)
    try:
        read_topology(text, str(file))
    except SpecError as error:
        for problem in error.problems:
            _say(f"{file} has to be edited before it can be used: {problem}")
