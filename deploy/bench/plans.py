"""`baton bench plans`: goodput per GPU of our plans, DistServe's two and colocated instances, in one table."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console

from deploy.bench.plan_case_run import Effort, Stages
from deploy.bench.plan_cases import CASES, NETWORKS, QUICK_CASE, QUICK_NETWORK, Case, Network
from deploy.bench.plan_jobs import Job, run_jobs
from deploy.bench.plan_plot import write_bars
from deploy.bench.plan_rows import Row, markdown, print_rows, read_rows, write_rows
from deploy.errors import InputError
from deploy.heat_map import require_matplotlib
from deploy.output_files import check_output

_QUICK = Effort(num_seeds=2, interval_s=1.0, num_ttfts=1.0, search_interval_s=1.0, stages=Stages.NONE)

Named = TypeVar("Named", Case, Network)


def bench_plans(
    case: Annotated[
        list[str] | None, typer.Option(help="Only cases with this in their names; may be repeated.")
    ] = None,
    network: Annotated[list[str] | None, typer.Option(help="Only networks with this in their names; likewise.")] = None,
    seeds: Annotated[int, typer.Option(min=2, help="Each plan is measured with so many.")] = 3,
    interval: Annotated[float, typer.Option(min=1.0, help="Seconds for which requests arrive, at least.")] = 30.0,
    stages: Annotated[Stages, typer.Option(help="Whose plans may have pipeline stages.")] = Stages.DISTSERVE,
    processes: Annotated[int | None, typer.Option(min=1, help="Default: one for each core.")] = None,
    traces: Annotated[Path | None, typer.Option(help="The folder of the workloads; else BATON_TRACES.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="One small row, to see that it works.")] = False,
    json: Annotated[Path | None, typer.Option(help="Rows are kept there; those that it has are not made anew.")] = None,
    markdown_file: Annotated[Path | None, typer.Option("--markdown", help="Write the tables there.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the rows as bars into this PNG.")] = None,
) -> None:
    """Compare our plans with DistServe's two and with colocated chunked prefill, by simulation, seed by seed."""
    for option, file in (("--json", json), ("--markdown", markdown_file)):
        check_output(option, file)
    check_output("--plot", plot, ".png")
    if plot is not None:
        require_matplotlib()
    console = Console(width=None if Console().is_terminal else 200)
    effort = _QUICK if quick else Effort(num_seeds=seeds, interval_s=interval, stages=stages)
    cases = [QUICK_CASE] if quick else _chosen(CASES, case, "--case")
    networks = [QUICK_NETWORK] if quick else _chosen(NETWORKS, network, "--network")
    settings = asdict(effort)
    rows = read_rows(json, settings) if json else []
    there = {(row.case, row.network) for row in rows}
    jobs = [
        Job(case=each, networks=left, folder=_folder(traces), effort=effort)
        for each in cases
        if (left := tuple(it for it in networks if (each.name, it.name) not in there))
    ]
    for row in run_jobs(jobs, processes or os.cpu_count() or 1, lambda text: console.print(text, highlight=False)):
        rows.append(row)
        if json:
            write_rows(json, _in_order(rows, cases, networks), settings)
    rows = _in_order(rows, cases, networks)
    print_rows(rows, console)
    if markdown_file is not None:
        markdown_file.write_text(markdown(rows))
    if plot is not None:
        write_bars(plot, rows)


def _chosen(all_of_them: tuple[Named, ...], parts: list[str] | None, option: str) -> list[Named]:
    found = [each for each in all_of_them if not parts or any(part.lower() in each.name.lower() for part in parts)]
    if not found:
        raise InputError(f"{option} {' '.join(parts or ())}: there are {', '.join(each.name for each in all_of_them)}")
    return found


def _in_order(rows: list[Row], cases: list[Case], networks: list[Network]) -> list[Row]:
    """As in the lists; what they do not have comes last, as it was kept."""
    places = {
        (case.name, network.name): at for at, (case, network) in enumerate((c, n) for c in cases for n in networks)
    }
    return sorted(rows, key=lambda row: places.get((row.case, row.network), len(places)))


def _folder(given: Path | None) -> Path:
    folder = given or Path(os.environ.get("BATON_TRACES", Path(__file__).parents[3] / "shared" / "traces"))
    if not folder.is_dir():
        raise InputError(f"no workloads at {folder}: name their folder with --traces or BATON_TRACES")
    return folder
