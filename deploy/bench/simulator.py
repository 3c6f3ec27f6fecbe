"""`baton bench simulator`: the simulator beside a real cluster.

One prefill and one decode instance, a core each, serve a recorded workload. The simulator is given the same arrivals,
and what was measured in place, before and after: how long steps take (`simulator_steps.py`), the link between the
instances, and what a message takes. Nothing is fitted to the outcome.
"""

import os
from pathlib import Path
from statistics import fmean
from typing import Annotated

import typer
from rich.console import Console

from cluster.latency.fit import residuals
from cluster.model.config import ModelConfig
from cluster.spec.checkpoint import ELEMENT_BYTES, CheckpointFacts
from deploy.bench.metrics import Figures, summarize
from deploy.bench.report import write_json
from deploy.bench.simulator_cluster import checkpoint, one_of_each, real_cluster, two_cores
from deploy.bench.simulator_measured import Measured
from deploy.bench.simulator_sides import as_json, compare, table_of
from deploy.bench.simulator_speed import (
    FLEET_REQUESTS,
    fleet_requests,
    golden_folder,
    lengths_file,
    on_fleet,
    on_references,
    show,
)
from deploy.bench.simulator_steps import Expected
from deploy.bench.traffic import TrafficOptions, read_requests
from deploy.durations import format_duration
from deploy.errors import DeployError, InputError
from deploy.output_files import check_output
from deploy.simulating.simulated import run
from deploy.workload.arrivals import mean_rate
from deploy.workload.prompts import PromptMaker
from deploy.workload.request import WorkloadRequest
from deploy.workload.scaling import fit_to_context

RECORDED = Path(__file__).with_name("recorded_workload.csv")
"""Lengths of HumanEval (MIT) as OPT's tokenizer counts them, in an order that was drawn, 1.6 a second, Poisson."""


def bench_simulator(
    trace: Annotated[Path | None, typer.Option(help="What is served; default: the workload that was recorded.")] = None,
    requests: Annotated[int | None, typer.Option(min=1, help="The first so many of it.")] = None,
    rate: Annotated[float | None, typer.Option(help="Requests a second; default: as recorded.")] = None,
    max_len: Annotated[int, typer.Option(min=2, help="Longer lengths are scaled to it, all of them.")] = 1536,
    seed: Annotated[int, typer.Option(help="Of prompts and drawn arrivals.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write both sides there.")] = None,
    speed: Annotated[bool, typer.Option("--speed", help="How fast the simulator is, instead.")] = False,
) -> None:
    """The simulator beside a real cluster of one prefill and one decode instance, a core each."""
    console = Console(width=None if Console().is_terminal else 120)
    check_output("--json", json_file)
    if speed:
        if json_file or rate:
            raise InputError("--speed has no use for --json and --rate")
        _show_speed(trace, requests, console)
        return
    trace = trace or RECORDED
    options = TrafficOptions(trace=trace, num_requests=requests, rate=rate, seed=seed)
    workload, _ = fit_to_context(read_requests(options, is_closed_loop=False), max_len)
    real, simulated, measured = _both_sides(workload, seed, console)
    rows = compare(real, simulated)
    console.print(
        table_of(rows, f"{len(workload)} requests of {trace.name}, {mean_rate(workload) or 0.0:.3g} a second")
    )
    if json_file:
        write_json(
            json_file,
            {},
            rows=as_json(rows),
            real=real,
            simulated=simulated,
            measured=measured.as_json(),
            trace=trace.name,
        )
    if missed := [row for row in rows if not row.is_within]:
        names = ", ".join(f"p{row.percentile} of {row.name}" for row in missed)
        raise DeployError(f"the simulator is further from the real cluster than its limits: {names}")


def _show_speed(trace: Path | None, requests: int | None, console: Console) -> None:
    golden, fleet = golden_folder(), fleet_requests(trace or lengths_file(), requests or FLEET_REQUESTS)
    show(list(on_references(golden, os.cpu_count() or 1)), console)
    show([on_fleet(fleet)], console)


def _both_sides(workload: list[WorkloadRequest], seed: int, console: Console) -> tuple[Figures, Figures, Measured]:
    cores = two_cores()
    with checkpoint() as path:
        deployment, config = one_of_each(path), ModelConfig.from_checkpoint(path)
        prompts = PromptMaker(config.vocab_size, (), seed).make(workload)
        facts = CheckpointFacts.read(path)
        engine = deployment.spec.pools[0].engine
        block_bytes = facts.kv_elements_per_token * ELEMENT_BYTES[deployment.spec.model.dtype] * engine.block_size
        with real_cluster(deployment, cores) as cluster:
            expected = _expected(workload)
            console.print("timing steps")
            before = cluster.time_steps(expected)
            console.print(f"serving {len(workload)} requests", highlight=False)
            outcomes, duration_s = cluster.serve(workload, prompts)
            console.print("timing steps again")
            after = cluster.time_steps(expected)
            measured = Measured(
                steps=before + after,
                topology=cluster.topology,
                message_s=cluster.message_s,
                num_blocks=engine.kv_cache_memory_bytes // block_bytes,
                block_bytes=block_bytes,
                max_model_len=facts.max_model_len,
            )
    _tell(measured, console)
    found = run(measured.cluster(deployment), workload, {})
    return summarize(outcomes, duration_s, {}), _as_seen_by_clients(found.figures, measured.message_s), measured


def _expected(workload: list[WorkloadRequest]) -> Expected:
    return Expected(
        rate=mean_rate(workload) or float(len(workload)),
        num_prompt_tokens=round(fmean(request.num_prompt_tokens for request in workload)),
        num_output_tokens=round(fmean(request.num_output_tokens for request in workload)),
    )


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
    latency, node = measured.latency, measured.topology.nodes[0].name
    for kind, steps in measured.of_kind().items():
        found = residuals(latency, steps)
        off = f"off by {found.median:.1%} in the median, {found.p90:.1%} at p90"
        console.print(f"{kind}: {found.num_steps} steps were timed; what is fitted to them is {off}", highlight=False)
    link = measured.topology.link(node, node)
    assert link is not None
    way = f"{format_duration(link.alpha_s)} and {link.beta_bytes_per_s / 1e6:.0f} MB/s"
    console.print(f"link: {way}; a message: {format_duration(measured.message_s)}", highlight=False)
