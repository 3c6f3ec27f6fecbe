"""`baton simulate`: how a deployment would serve a trace, worked out by its own brain on a virtual clock."""

import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console

    from deploy.bench.traffic import TrafficOptions
    from deploy.simulating.rates import AtRate
    from deploy.simulating.simulated import Simulated
    from deploy.simulator.cluster import SimCluster
    from deploy.workload.request import WorkloadRequest

_NUM_SAMPLES, _SHORTEST_SAMPLE_S = 1000, 0.01


def add_to(app: typer.Typer) -> None:
    app.command()(simulate)


def simulate(
    words: Annotated[list[str], typer.Argument(metavar="FILE", help="The deployment, such as deploy/local.yaml.")],
    trace: Annotated[Path, typer.Option(help="Azure, BurstGPT, lengths (.csv, .json), Mooncake (.jsonl); or .gz.")],
    topology: Annotated[
        Path | None, typer.Option(help="Nodes and links, YAML or JSON; without one, KV travels in no time.")
    ] = None,
    gpu: Annotated[str | None, typer.Option(help="a100, h100, h200: a rank of an instance has one to itself.")] = None,
    model_shape: Annotated[
        str | None, typer.Option(help="Such as llama-3-70b, or a config.json; default: the deployment's model.")
    ] = None,
    latency: Annotated[Path | None, typer.Option(help="Instead of a GPU: what `baton profile` wrote.")] = None,
    requests: Annotated[int | None, typer.Option(min=1, help="The first so many of the trace.")] = None,
    rate: Annotated[float | None, typer.Option(help="Requests a second; inf: all at once.")] = None,
    burstiness: Annotated[float, typer.Option(help="Of drawn arrivals: 1 is Poisson, less is burstier.")] = 1.0,
    speedup: Annotated[float, typer.Option(help="Of the trace's own arrivals.")] = 1.0,
    max_len: Annotated[int | None, typer.Option(min=2, help="Scale lengths to it; default: as they are.")] = None,
    goodput: Annotated[list[str] | None, typer.Option(metavar="ttft:MS tpot:MS", help="Or the file's slos.")] = None,
    rates: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="Also at these rates: how many meet the SLOs.")
    ] = None,
    death: Annotated[
        list[str] | None, typer.Option(metavar="NAME:AT[:BACK]", help="An instance dies; may be repeated.")
    ] = None,
    start_up: Annotated[
        list[str] | None, typer.Option(metavar="NAME:S", help="An instance joins so late; may be repeated.")
    ] = None,
    message: Annotated[float, typer.Option(min=0.0, metavar="MS", help="That a control message takes.")] = 0.0,
    host_step: Annotated[
        float, typer.Option(min=0.0, metavar="MS", help="That an instance takes between two steps.")
    ] = 0.0,
    believed: Annotated[
        Path | None, typer.Option(help="What the router takes --topology for; default: knows it as it is.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write JSON there, with vllm bench serve's names.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw what happened when into this PNG; with --rates, also NAME-rates.png.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of drawn arrivals, and of the simulation.")] = 0,
) -> None:
    """Simulate a deployment under a trace: latencies and goodput, and what instances, links and handovers did."""
    from rich.console import Console

    from deploy.bench.limits import limits_of, split_words
    from deploy.bench.report import write_json
    from deploy.bench.traffic import TrafficOptions
    from deploy.cli.place import read_topology_file
    from deploy.cli.simulated import rates as rates_table
    from deploy.cli.simulated import show
    from deploy.errors import InputError
    from deploy.heat_map import require_matplotlib
    from deploy.output_files import check_output
    from deploy.simulating.cluster import make_cluster
    from deploy.simulating.deaths import parse_death
    from deploy.simulating.deployment import read_deployment
    from deploy.simulating.machines import machines_of
    from deploy.simulating.rates import at_rate, parse_rates
    from deploy.simulating.simulated import run
    from deploy.simulating.start_ups import parse_start_ups

    file, slos_ms = split_words([*words, *(goodput or ())])
    if file is None:
        raise InputError("FILE is missing: the deployment that is simulated")
    check_output("--json", json_file)
    check_output("--plot", plot, ".png")
    if plot is not None:
        require_matplotlib()  # before anything is simulated
    for option, value in (("--message", message), ("--host-step", host_step)):
        if not isfinite(value):
            raise InputError(f"{option} is {value:g}; should be some milliseconds")
    if believed and not topology:
        raise InputError("--believed says what the router takes the network for: give --topology, how it is")
    deployment = read_deployment(file)
    slos_ms = slos_ms or limits_of(deployment.spec.slos)
    wanted = parse_rates(rates) if rates is not None else []
    if wanted and not slos_ms:
        raise InputError("--rates asks how many requests meet their SLOs: give --goodput, or the file its slos")
    options = TrafficOptions(
        trace=trace,
        num_requests=requests,
        rate=rate,
        burstiness=burstiness,
        speedup=speedup,
        max_len=max_len,
        seed=seed,
    )
    workload = _read(options, wanted)
    cluster = make_cluster(
        file,
        deployment,
        machines_of(deployment, gpu, model_shape, latency),
        read_topology_file(topology) if topology else None,
        workload,
        deaths=tuple(parse_death(text) for text in death or ()),
        seed=seed,
    )
    cluster = replace(
        cluster,
        start_up_s=parse_start_ups(start_up or ()),
        message_s=message / 1e3,
        host_step_s=host_step / 1e3,
        believed=read_topology_file(believed) if believed else None,
    )
    console = Console(width=None if sys.stdout.isatty() else 120)
    _introduce(cluster, workload, trace, topology, console)
    with _progress(len(workload) * (1 + len(wanted))) as begin:
        found = run(cluster, workload, slos_ms, sample_s=_sample_s(workload) if plot else None, on_progress=begin())
        at_rates = [at_rate(cluster, workload, options, each, slos_ms, begin()) for each in wanted]
    show(found, console)
    if at_rates:
        console.print(rates_table(at_rates, deployment.spec.slos.attainment))
    if json_file:
        figures = {**found.as_json(), "rates": [asdict(each) for each in at_rates]}
        write_json(json_file, figures, trace=trace.name, seed=seed, goodput_slos_ms=slos_ms)
    if plot:
        _draw(plot, file.name, found, at_rates, deployment.spec.slos.attainment)


def _read(options: "TrafficOptions", rates: list[float]) -> "list[WorkloadRequest]":
    """Where nothing says when requests come, at the first of the rates."""
    from deploy.bench.traffic import pace
    from deploy.errors import InputError
    from deploy.simulating.span import check_span
    from deploy.workload.read import read_workload
    from deploy.workload.scaling import fit_to_context

    requests = read_workload(options.trace, options.num_requests)
    if options.max_len is not None:
        requests, _ = fit_to_context(requests, options.max_len)
    if options.rate is None and requests[0].arrival_s is None:
        if not rates:
            raise InputError(f"{options.trace} holds no arrival times; give --rate")
        options = replace(options, rate=rates[0])
    for rate in rates:
        check_span(pace(requests, replace(options, rate=rate), is_closed_loop=False))
    paced = pace(requests, options, is_closed_loop=False)
    check_span(paced)
    return paced


def _sample_s(requests: "list[WorkloadRequest]") -> float:
    """A picture has so many samples while requests come, and more if they take longer."""
    return max(_SHORTEST_SAMPLE_S, (requests[-1].arrival_s or 0.0) / _NUM_SAMPLES)


def _introduce(
    cluster: "SimCluster", requests: "list[WorkloadRequest]", trace: Path, topology: Path | None, console: "Console"
) -> None:
    from deploy.workload.arrivals import mean_rate

    pace = f"{rate:.3g} requests/s" if (rate := mean_rate(requests)) else "all at once"
    roles = Counter(instance.role.value for instance in cluster.instances)
    counts = ", ".join(f"{count} {role}" for role, count in roles.items())
    where = (
        f"on {len({instance.node for instance in cluster.instances})} nodes" if topology else "KV travels in no time"
    )
    console.print(f"{len(requests)} requests of {trace.name}, {pace}; {counts}; {where}", markup=False, highlight=False)


@contextmanager
def _progress(num_requests: int) -> "Iterator[Callable[[], Callable[[int, float], None]]]":
    """A bar on a terminal. Each simulation begins by asking for who hears how many of its requests are over."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("simulating", total=num_requests)
        begun: list[int] = []

        def begin() -> "Callable[[int, float], None]":
            begun.append(0)
            at = len(begun) - 1

            def hear(num_over: int, now_s: float) -> None:
                progress.update(task, advance=num_over - begun[at], description=f"simulating, at {now_s:,.0f} s")
                begun[at] = num_over

            return hear

        yield begin


def _draw(plot: Path, name: str, found: "Simulated", at_rates: "Sequence[AtRate]", target: float) -> None:
    from deploy.simulating.plot import write_rates, write_timeline

    write_timeline(plot, f"{name}, simulated", found.report)
    if at_rates:
        write_rates(plot.with_name(f"{plot.stem}-rates{plot.suffix}"), f"{name}, simulated", at_rates, target)
