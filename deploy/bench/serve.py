"""`baton bench serve`: replays a trace against a deployment, and tells how it was served."""

import asyncio
import datetime
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from cluster.pb import baton_pb2
from cluster.spec.load import load_deployment
from deploy.bench.clients import CLIENTS
from deploy.bench.compare import compare_with_engine
from deploy.bench.limits import limits_of, split_words
from deploy.bench.load import measure, run_load
from deploy.bench.metrics import Figures, summarize
from deploy.bench.outcome import Outcome
from deploy.bench.place import Place, place_of
from deploy.bench.report import leftovers, print_errors, print_figures, write_json
from deploy.bench.traffic import Traffic, TrafficOptions, make_traffic, read_requests
from deploy.client import connect, fetch_status
from deploy.errors import DeployError, InputError
from deploy.workload.request import WorkloadRequest

_IDLE_TIMEOUT_S = 5.0
_SNAPSHOT_INTERVAL_S = 0.25


def bench_serve(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE]", help="The deployment; default: what runs.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Azure, BurstGPT, lengths (.csv), Mooncake (.jsonl); or .gz.")
    ] = None,
    requests: Annotated[int | None, typer.Option(min=1, help="The first so many of the trace.")] = None,
    backend: Annotated[Literal["grpc", "http"], typer.Option()] = "grpc",
    rate: Annotated[float | None, typer.Option(help="Requests a second; inf: all at once.")] = None,
    burstiness: Annotated[float, typer.Option(help="Of drawn arrivals: 1 is Poisson, less is burstier.")] = 1.0,
    speedup: Annotated[float, typer.Option(help="Of the trace's own arrivals.")] = 1.0,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Requests under way at most.")] = None,
    max_len: Annotated[
        int | None, typer.Option(min=2, help="Scale lengths to it; default: the model's context.")
    ] = None,
    goodput: Annotated[list[str] | None, typer.Option(metavar="ttft:MS tpot:MS", help="Or the file's slos.")] = None,
    seed: Annotated[int, typer.Option(help="Of prompts and drawn arrivals.")] = 0,
    result: Annotated[Path | None, typer.Option(help="Write JSON there, with vllm bench serve's names.")] = None,
    compare: Annotated[Literal["engine"] | None, typer.Option(help="1P+1D against the bare engine.")] = None,
) -> None:
    """Replay a trace against a deployment, which is brought up for it unless it runs already."""
    file, slos_ms = split_words([*(words or ()), *(goodput or ())])
    console = Console(width=None if Console().is_terminal else 120)
    if compare:
        compare_with_engine(file, requests, concurrency or 16, console)
        return
    if trace is None:
        raise InputError("--trace is missing: the file that says what to send")
    options = TrafficOptions(
        trace=trace,
        num_requests=requests,
        rate=rate,
        burstiness=burstiness,
        speedup=speedup,
        max_len=max_len,
        seed=seed,
    )
    slos_ms = slos_ms or _slos_of(file)
    workload = read_requests(options, is_closed_loop=concurrency is not None)
    with place_of(file) as place:
        figures, is_clean = _bench(place, workload, options, backend, concurrency, slos_ms, console)
    if result:
        context = {"backend": backend, "trace": trace.name, "max_concurrency": concurrency, "goodput_slos_ms": slos_ms}
        write_json(result, figures, date=f"{datetime.datetime.now():%Y%m%d-%H%M%S}", **context)
    if figures["failed"] or not is_clean:
        raise DeployError(f"{figures['failed']} requests failed" if figures["failed"] else "something was left behind")


def _slos_of(file: Path | None) -> dict[str, float]:
    return limits_of(load_deployment(file).spec.slos) if file else {}


def _bench(
    place: Place,
    requests: list[WorkloadRequest],
    options: TrafficOptions,
    backend: str,
    concurrency: int | None,
    slos_ms: dict[str, float],
    console: Console,
) -> tuple[Figures, bool]:
    with connect(place.grpc_address) as stub:
        model = stub.GetModelInfo(baton_pb2.GetModelInfoRequest(), timeout=5.0)
    traffic = make_traffic(requests, options, model)
    _introduce(options, traffic, model, console)
    with _progress(len(traffic.requests), console) as on_done:
        work = replay(place.address(backend), backend, traffic, concurrency, on_done)
        outcomes, duration_s = asyncio.run(work)
    figures = summarize(outcomes, duration_s, slos_ms)
    print_figures(figures, console)
    print_errors(outcomes, console)
    left = wait_until_idle(place.grpc_address)
    console.print("\n".join(left) or "every instance holds zero sequences, zero reserved and zero leaked blocks")
    return figures, not left


def _introduce(options: TrafficOptions, traffic: Traffic, model: baton_pb2.ModelInfo, console: Console) -> None:
    pace = f"{traffic.rate:.3g} requests/s" if traffic.rate else "all at once"
    console.print(f"{len(traffic.requests)} requests of {options.trace.name} to {model.model}, {pace}", markup=False)
    if traffic.length_factor < 1:
        longest = options.max_len or model.max_model_len
        console.print(
            f"all lengths are scaled by {traffic.length_factor:.3f}, so that the longest has {longest} tokens"
        )


async def replay(
    address: str, backend: str, traffic: Traffic, concurrency: int | None, on_done: Callable[[Outcome], None]
) -> tuple[list[Outcome], float]:
    """One request first that is not counted: it makes the connections."""
    async with CLIENTS[backend](address) as client:
        warm_up = await measure(client, traffic.prompts[0][:16], 2)
        if warm_up.error:
            raise DeployError(f"the first request failed: {warm_up.error}")
        return await run_load(client, traffic.requests, traffic.prompts, concurrency=concurrency, on_done=on_done)


def wait_until_idle(address: str) -> list[str]:
    """What is still held when nothing should be; instances report a few times a second, so it may take a moment."""
    deadline_s = time.monotonic() + _IDLE_TIMEOUT_S
    while (left := leftovers(fetch_status(address))) and time.monotonic() < deadline_s:
        time.sleep(_SNAPSHOT_INTERVAL_S)
    return left


@contextmanager
def _progress(total: int, console: Console) -> Iterator[Callable[[Outcome], None]]:
    """A bar on a terminal, a line for every tenth elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("requests"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    done: list[Outcome] = []
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)

        def on_done(outcome: Outcome) -> None:
            done.append(outcome)
            progress.advance(task)
            if not console.is_terminal and len(done) * 10 // total > (len(done) - 1) * 10 // total:
                console.print(f"{len(done)} of {total}, {_num_failed(done)} failed", highlight=False)

        yield on_done


def _num_failed(outcomes: Sequence[Outcome]) -> int:
    return sum(not outcome.is_success for outcome in outcomes)
