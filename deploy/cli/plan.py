"""`baton plan`: which deployment serves most within the SLOs, on nodes and links as they are."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from deploy.planner.goodput.plans import Plans
    from deploy.planning.bandwidths import Swept
    from deploy.planning.planned import Planned


def add_to(app: typer.Typer) -> None:
    app.command()(plan)


def plan(
    words: Annotated[list[str], typer.Argument(metavar="FILE", help="The deployment, such as deploy/local.yaml.")],
    topology: Annotated[Path | None, typer.Option(help="Nodes and links, YAML or JSON; else as measured.")] = None,
    workload: Annotated[
        Path | None, typer.Option(help="A trace or lengths, as for `baton simulate`; else 2,048 and 256 tokens.")
    ] = None,
    gpu: Annotated[
        list[str] | None, typer.Option(help="h100; or NODE=h100, GROUP=a100 where they differ. May be repeated.")
    ] = None,
    model_shape: Annotated[
        str | None, typer.Option(help="Such as llama-3-70b; default: the deployment's model.")
    ] = None,
    latency: Annotated[Path | None, typer.Option(help="Instead of a GPU: what `baton profile` wrote.")] = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="Use so many at most; without GPUs: so many instances.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Serve so many requests a second with the fewest GPUs; else most per GPU.")
    ] = None,
    goodput: Annotated[list[str] | None, typer.Option(metavar="ttft:MS tpot:MS", help="Or the file's slos.")] = None,
    attainment: Annotated[float | None, typer.Option(min=0.01, max=1.0, help="Share of requests within them.")] = None,
    allow_pp: Annotated[bool, typer.Option("--allow-pp", help="Also plans with pipeline stages.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the best plan's YAML there: that `baton up` can run.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all that was found there.")] = None,
    crossover: Annotated[
        bool, typer.Option("--crossover", help="Also at other bandwidths between nodes: where the best plan changes.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw what was simulated into this PNG.")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Of the deployment that runs: say when other roles would serve more.")
    ] = False,
    apply: Annotated[bool, typer.Option("--apply", help="With --watch: carry it out, by drains and flips.")] = False,
    interval: Annotated[
        float | None, typer.Option(min=1.0, help="With --watch: seconds between two looks. Default: 30.")
    ] = None,
    checks: Annotated[
        int | None, typer.Option(min=1, help="With --watch: it has to be so in so many in a row. Default: 3.")
    ] = None,
    simulated: Annotated[
        float | None,
        typer.Option(min=0.1, help="Seconds for which requests arrive in each trial of the search; else chosen."),
    ] = None,
    processes: Annotated[int | None, typer.Option(min=0, help="That simulate; default: one a core.")] = None,
) -> None:
    """Find the parallelism, roles, counts and places that serve most per GPU, or a rate with the fewest GPUs."""
    from rich.console import Console

    from deploy.bench.limits import split_words
    from deploy.cli.place import measured_topology, read_topology_file
    from deploy.cli.plan_watch import live_cluster, watch_running
    from deploy.cli.planned import show, show_crossovers
    from deploy.errors import InputError
    from deploy.planner.goodput.question import Infeasible
    from deploy.planning.asked import Asked, burstiness_of, question_of, too_long, too_many_gpus
    from deploy.planning.bandwidths import sweep_bandwidths
    from deploy.planning.plan import plan as find
    from deploy.planning.planned import Planned
    from deploy.planning.routing import routing_of
    from deploy.planning.watch import WatchConfig
    from deploy.simulating.deployment import read_deployment
    from deploy.workload.read import read_workload

    file, slos_ms = split_words([*words, *(goodput or ())])
    if file is None:
        raise InputError("FILE is missing: the deployment that is planned")
    if watch:
        _refuse("with", output=output, json=json_file, plot=plot, rate=rate, crossover=crossover, gpus=gpus)
        _refuse("with", allow_pp=allow_pp)
    else:
        _refuse("without", apply=apply, interval=interval, checks=checks)
    if watch and len(gpu or ()) > 1:
        raise InputError("--watch takes all nodes to have the same GPU: give --gpu once")
    if simulated is not None and not isfinite(simulated):
        raise InputError(f"--simulated {simulated:g}: trials have to end")
    _check_outputs(json_file, output, plot)
    deployment = read_deployment(file)
    requests = read_workload(workload) if workload else []
    if not requests:
        print("no --workload: planned for prompts of 2,048 tokens and outputs of 256", file=sys.stderr)
    running = live_cluster(deployment) if watch else None
    if topology:
        network = read_topology_file(topology)
    else:
        network = running.topology() if running else measured_topology(deployment)
    asked = Asked(
        gpus=tuple(gpu or ()),
        model_shape=model_shape,
        latency=latency,
        rate=rate,
        num_gpus=gpus,
        allow_pp=allow_pp,
        slos_ms=slos_ms,
        attainment=attainment,
    )
    given: dict[str, Any] = {
        "simulated_s": simulated,
        "num_processes": processes,
        "routing": routing_of(deployment),
    }
    try:
        question = question_of(deployment, network, requests, asked)
        for text in (too_long(requests, question), too_many_gpus(question)):
            if text:
                print(text, file=sys.stderr)
        if running:
            config = WatchConfig(num_checks=checks or 3, is_applied=apply, **given)
            watch_running(running, question, config, interval or 30.0)
        with _progress() as say:
            given["burstiness"] = burstiness_of(requests)
            found = find(question, **given, say=say)
            swept = sweep_bandwidths(question, found.mixed, **given, say=say) if crossover else None
    except Infeasible as error:
        raise InputError(str(error)) from error
    planned = Planned(deployment=deployment, question=question, on_gpu=latency is None, model_shape=model_shape)
    console = Console(width=None if sys.stdout.isatty() else 120)
    show(found, planned, console)
    if swept is not None:
        show_crossovers(swept, console)
    _write(found, swept, planned, file.name, console, json_file=json_file, output=output, plot=plot)


def _check_outputs(json_file: Path | None, output: Path | None, plot: Path | None) -> None:
    """Before anything is simulated."""
    from deploy.heat_map import require_matplotlib
    from deploy.output_files import check_output

    check_output("--json", json_file)
    check_output("--output", output)
    check_output("--plot", plot, ".png")
    if plot is not None:
        require_matplotlib()


def _write(
    found: "Plans",
    swept: "Swept | None",
    planned: "Planned",
    name: str,
    console: "Console",
    *,
    json_file: Path | None,
    output: Path | None,
    plot: Path | None,
) -> None:
    from deploy.bench.report import write_json
    from deploy.cli.planned import as_json
    from deploy.planning.planned import choose
    from deploy.planning.plot import write_plot

    if json_file:
        write_json(json_file, as_json(found, planned.question))
    if plot:
        write_plot(plot, f"{name}: {found.best.whole}", found, swept)
    if output:
        chosen, which = choose(found)
        output.write_text(planned.yaml(chosen))
        console.print(f"{output} holds {which}", markup=False, highlight=False, soft_wrap=True)


def _refuse(how: str, **given: object) -> None:
    """InputError names the first option that says something."""
    from deploy.errors import InputError

    for name, value in given.items():
        if value:
            raise InputError(f"--{name.replace('_', '-')} means nothing {how} --watch")


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """One line that changes on a terminal; else a line for each thing that is begun."""
    if not sys.stderr.isatty():
        yield lambda text: None if text[:1].isdigit() else print(text, file=sys.stderr, flush=True)
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield status.update
