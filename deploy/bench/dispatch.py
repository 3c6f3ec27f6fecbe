"""`baton bench dispatch`: what choosing by measured links is worth, against choosing by load alone."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deploy.bench.dispatch_calculation import BY_LOAD, Calculation, Row, keep, print_rows
from deploy.bench.dispatch_machine import Machine
from deploy.errors import InputError
from deploy.workload.read import read_workload
from deploy.workload.scaling import fit_to_context
from router.policies import DISPATCH_POLICIES

TRACES = ("azure2023_conv.csv.gz", "mooncake_conversation.jsonl.gz")
_DEFAULT_REQUESTS = 4000
_DEFAULT_MAX_LEN = 32_768


def bench_dispatch(
    trace: Annotated[
        list[Path] | None, typer.Option(help="May be given again. Default: Azure's and Mooncake's conversations.")
    ] = None,
    requests: Annotated[int | None, typer.Option(min=2, help="The first so many of each trace.")] = None,
    load: Annotated[float, typer.Option(min=0.01, max=1.0, help="What part of the time prefill computes.")] = 0.6,
    max_len: Annotated[int | None, typer.Option(min=2, help="Scale lengths so that the longest has so many.")] = None,
    policy: Annotated[list[str] | None, typer.Option(help="To compare with least_loaded; may be given again.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures there.")] = None,
) -> None:
    """Compare dispatch policies by a calculation: 64 instances, racks of unequal bandwidth, equal links, no engine."""
    console = Console(width=None if Console().is_terminal else 160)
    policies = policies_of(policy)
    machine = Machine()
    calculation = Calculation(load=load, machine=machine, policies=policies)
    console.print(
        f"64 instances, 24 prefill and 40 decode: {machine.describe()}; prefill computes {load:.0%} of the time"
    )
    rows: list[Row] = []
    for file in traces_of(trace):
        scaled, factor = fit_to_context(read_workload(file, requests or _DEFAULT_REQUESTS), max_len or _DEFAULT_MAX_LEN)
        console.print(f"{file.name}: {len(scaled)} requests, lengths times {factor:.3g}")
        found = list(calculation.compare(file.name, scaled))
        print_rows(found, console)
        rows += found
    if json:
        keep(json, rows, calculation)


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
