"""`baton bench simulator`: the simulator beside a real cluster.

One prefill and one decode instance, a core each, serve a recorded workload. The simulator is given the same arrivals,
and what was measured in place before: the engine's step times on both cores at once, the link between the instances,
what a message takes, and what an instance does between its steps. Nothing is fitted to the outcome.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cluster.model.config import ModelConfig
from deploy.bench.metrics import Figures, summarize
from deploy.bench.simulator_cluster import TOKEN_BUDGET, checkpoint, one_of_each, real_cluster, two_cores
from deploy.bench.simulator_measured import Measured
from deploy.bench.simulator_profile import profile_beside
from deploy.bench.simulator_sides import Row, as_json, compare, table_of
from deploy.bench.traffic import TrafficOptions, read_requests
from deploy.durations import format_duration
from deploy.errors import DeployError
from deploy.simulating.simulated import run
from deploy.workload.arrivals import mean_rate
from deploy.workload.prompts import PromptMaker
from deploy.workload.request import WorkloadRequest
from deploy.workload.scaling import fit_to_context

RECORDED = Path(__file__).with_name("recorded_workload.csv")
"""Lengths of HumanEval (MIT) as OPT's tokenizer counts them, in an order that was drawn, 1.6 a second, Poisson."""

_ALONE_PROMPT = 128


def bench_simulator(
    trace: Annotated[Path, typer.Option(help="What is served; default: the workload that comes with this.")] = RECORDED,
    requests: Annotated[int | None, typer.Option(min=1, help="The first so many of it.")] = None,
    rate: Annotated[float | None, typer.Option(help="Requests a second; default: as recorded.")] = None,
    max_len: Annotated[int, typer.Option(min=2, help="Longer lengths are scaled to it, all of them.")] = 1536,
    seed: Annotated[int, typer.Option(help="Of prompts and drawn arrivals.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write both sides there.")] = None,
) -> None:
    """The simulator beside a real cluster of one prefill and one decode instance, a core each."""
    console = Console(width=None if Console().is_terminal else 120)
    options = TrafficOptions(trace=trace, num_requests=requests, rate=rate, seed=seed)
    workload, _ = fit_to_context(read_requests(options, is_closed_loop=False), max_len)
    real, simulated, measured = _both_sides(workload, seed, console)
    rows = compare(real, simulated)
    console.print(
        table_of(rows, f"{len(workload)} requests of {trace.name}, {mean_rate(workload) or 0.0:.3g} a second")
    )
    if json_file:
        _write(json_file, rows, real=real, simulated=simulated, measured=measured.as_json(), trace=trace.name)
    if missed := [row for row in rows if not row.is_within]:
        names = ", ".join(f"p{row.percentile} of {row.name}" for row in missed)
        raise DeployError(f"the simulator is further from the real cluster than its limits: {names}")


def _both_sides(workload: list[WorkloadRequest], seed: int, console: Console) -> tuple[Figures, Figures, Measured]:
    cores = two_cores()
    with checkpoint() as path:
        deployment = one_of_each(path)
        model = ModelConfig.from_checkpoint(path)
        console.print(f"timing the engine's steps on cores {cores[0]} and {cores[1]} at once", highlight=False)
        steps = profile_beside(path, cores, TOKEN_BUDGET)
        maker = PromptMaker(model.vocab_size, (), seed)
        with real_cluster(deployment, cores) as cluster:
            (alone,) = maker.make(
                [WorkloadRequest(arrival_s=0.0, num_prompt_tokens=_ALONE_PROMPT, num_output_tokens=1)]
            )
            measured = Measured(
                steps=steps,
                topology=cluster.topology,
                message_s=cluster.message_s,
                alone=cluster.decode_alone(alone),
            )
            _tell(measured, console)
            outcomes, duration_s = cluster.serve(workload, maker.make(workload))
    found = run(measured.cluster(deployment, model.max_model_len), workload, {})
    return summarize(outcomes, duration_s, {}), _as_seen_by_clients(found.figures, measured.message_s), measured


def _as_seen_by_clients(figures: Figures, message_s: float) -> Figures:
    """A request is a message on its way to the router, and so is each of its tokens on its way back."""
    delayed = {
        f"{kind}_{name}_ms" for name in ("ttft", "e2el") for kind in ("mean", "median", "p50", "p90", "p95", "p99")
    }
    return {
        name: value + 2e3 * message_s if name in delayed and value is not None else value
        for name, value in figures.items()
    }


def _tell(measured: Measured, console: Console) -> None:
    node = measured.topology.nodes[0].name
    for name, hardware in zip(("prefill", "decode"), measured.steps, strict=True):
        found = hardware.residuals[name]
        console.print(
            f"{name}: {found.num_steps} kinds of steps timed; the fit is off by {found.median:.1%} in the median, "
            f"{found.p90:.1%} at p90",
            highlight=False,
        )
    if link := measured.topology.link(node, node):
        rate = link.beta_bytes_per_s / 1e6
        console.print(f"link: {format_duration(link.alpha_s)} and {rate:.0f} MB/s", highlight=False)
    console.print(
        f"a message: {format_duration(measured.message_s)}; between steps: {format_duration(measured.host_step_s)}",
        highlight=False,
    )


def _write(file: Path, rows: list[Row], **context: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"rows": as_json(rows), **context}, indent=2) + "\n")
