"""`baton bench dispatch`: what choosing by measured links is worth, against choosing by load alone."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deploy.bench import dispatch_cluster
from deploy.bench.dispatch_calculation import BY_LOAD, Calculation, Row, keep, print_rows
from deploy.bench.dispatch_cluster import Replay, print_compared, print_links
from deploy.bench.dispatch_machine import Machine
from deploy.errors import InputError
from deploy.workload.read import read_workload
from deploy.workload.request import WorkloadRequest
from deploy.workload.scaling import fit_to_context
from router.policies import DISPATCH_POLICIES

TRACES = ("azure2023_conv.csv.gz", "mooncake_conversation.jsonl.gz")
_DEFAULT_REQUESTS = 4000
_DEFAULT_CLUSTER_REQUESTS = 100
_DEFAULT_MAX_LEN = 32_768


def bench_dispatch(
    trace: Annotated[
        list[Path] | None, typer.Option(help="May be given again. Default: Azure's and Mooncake's conversations.")
    ] = None,
    requests: Annotated[int | None, typer.Option(min=2, help="The first so many of each trace.")] = None,
    load: Annotated[float, typer.Option(min=0.01, max=1.0, help="What part of the time prefill computes.")] = 0.6,
    error: Annotated[float, typer.Option(min=0.0, max=1.0, help="How far off is what was measured of a link.")] = 0.1,
    max_len: Annotated[int | None, typer.Option(min=2, help="Scale lengths so that the longest has so many.")] = None,
    policy: Annotated[list[str] | None, typer.Option(help="To compare with least_loaded; may be given again.")] = None,
    cluster: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="On the running cluster whose gRPC front that is.")
    ] = None,
    rate: Annotated[float, typer.Option(min=0.01, help="With --cluster: requests a second.")] = 2.0,
    rounds: Annotated[int, typer.Option(min=1, help="With --cluster: of each policy.")] = 2,
    json: Annotated[Path | None, typer.Option(help="Write the figures there.")] = None,
) -> None:
    """Compare dispatch policies: by a calculation over 64 instances without an engine, or on a running cluster."""
    console = Console(width=None if Console().is_terminal else 180)
    policies, files = policies_of(policy), traces_of(trace)
    if cluster:
        workloads = {file.name: read_workload(file, requests or _DEFAULT_CLUSTER_REQUESTS) for file in files}
        replay = Replay(address=cluster, policies=policies, rate=rate, num_rounds=rounds, max_len=max_len)
        _replay(replay, workloads, json, console)
    else:
        workloads = {file.name: read_workload(file, requests or _DEFAULT_REQUESTS) for file in files}
        calculation = Calculation(load=load, machine=Machine(), policies=policies, error=error)
        _calculate(calculation, workloads, max_len or _DEFAULT_MAX_LEN, json, console)


def _calculate(
    calculation: Calculation,
    workloads: dict[str, list[WorkloadRequest]],
    max_len: int,
    json: Path | None,
    console: Console,
) -> None:
    console.print(f"64 instances, 24 prefill and 40 decode: {calculation.machine.describe()}", soft_wrap=True)
    console.print(
        f"prefill instances compute {calculation.load:.0%} of the time, were nothing cached; "
        f"what was measured of each link is off by a factor of about 1 ± {calculation.error:g}"
    )
    rows: list[Row] = []
    for name, requests in workloads.items():
        scaled, factor = fit_to_context(requests, max_len)
        console.print(f"{name}: {len(scaled)} requests, lengths times {factor:.3g}")
        found = list(calculation.compare(name, scaled))
        print_rows(found, console)
        rows += found
    if json:
        keep(json, rows, calculation)


def _replay(replay: Replay, workloads: dict[str, list[WorkloadRequest]], json: Path | None, console: Console) -> None:
    all_compared = []
    for name, requests in workloads.items():
        compared = replay.compare(name, requests, console)
        print_compared(compared, BY_LOAD, console)
        all_compared.append(compared)
    print_links(replay.address, console)
    if json:
        dispatch_cluster.keep(json, all_compared, replay)


def policies_of(given: list[str] | None) -> list[str]:
    """Load alone comes first."""
    wanted = given or [name for name in DISPATCH_POLICIES if name != BY_LOAD]
    for name in wanted:
        if name not in DISPATCH_POLICIES:
            raise InputError(f"--policy {name}: there are {', '.join(DISPATCH_POLICIES)}")
    return [BY_LOAD, *(name for name in wanted if name != BY_LOAD)]


def traces_of(given: list[Path] | None) -> list[Path]:
    if given:
        return given
    folder = Path(os.environ.get("BATON_TRACES", Path(__file__).parents[3] / "shared" / "traces"))
    files = [folder / name for name in TRACES]
    if missing := [str(file) for file in files if not file.exists()]:
        raise InputError(f"no trace at {', '.join(missing)}: name one with --trace, or a folder with BATON_TRACES")
    return files
