"""How fast the simulator is: on the references of DistServe's simulator, and on a fleet."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

from rich.console import Console
from rich.table import Table

from cluster.latency.hardware import Parallelism
from cluster.latency.named import hardware_named
from cluster.role import InstanceRole
from cluster.topology.synthetic import racks
from deploy.bench.simulator_oracle import read_reference, references
from deploy.errors import InputError
from deploy.simulating.simulated import run
from deploy.simulator.cluster import SimCluster, SimInstance
from deploy.workload.arrivals import draw_arrivals
from deploy.workload.read import read_workload
from deploy.workload.request import WorkloadRequest

DISTSERVE_REQUESTS_PER_S = 100.0
"""What DistServe's simulator does on these references, with two cores."""

FLEET_REQUESTS = 100_000
LENGTHS = "azure2023_conv.csv.gz"

_REPEATS = 3
_NUM_NODES, _GPUS_A_NODE = 8, 8
_FLEET_RATE = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """`duration_s`: that was simulated, in `wall_s`."""

    name: str
    num_requests: int
    duration_s: float
    wall_s: float

    @property
    def requests_per_s(self) -> float:
        return self.num_requests / self.wall_s


def golden_folder() -> Path:
    """InputError where the references are not."""
    folder = Path(os.environ.get("BATON_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
    if not references(folder):
        raise InputError(f"no references at {folder}: BATON_GOLDEN says where they are")
    return folder


def lengths_file() -> Path:
    """InputError where the trace is not."""
    file = Path(os.environ.get("BATON_TRACES", Path(__file__).parents[3] / "shared" / "traces")) / LENGTHS
    if not file.is_file():
        raise InputError(f"no trace at {file}: name one with --trace, or its folder with BATON_TRACES")
    return file


def on_references(folder: Path, num_processes: int) -> Iterator[Speed]:
    """Each by itself, and then all, as many at a time as there are processes."""
    files = references(folder)
    with ProcessPoolExecutor(num_processes, multiprocessing.get_context("spawn")) as pool:
        alone = list(pool.map(_on_reference, files))
        began_s = time.monotonic()
        together = list(pool.map(_run_reference, files * _REPEATS))
        wall_s = time.monotonic() - began_s
    yield from alone
    yield Speed(
        name=f"all of them, {num_processes} at a time",
        num_requests=sum(it.num_requests for it in together),
        duration_s=sum(it.duration_s for it in together),
        wall_s=wall_s,
    )


def _on_reference(file: Path) -> Speed:
    runs = [_run_reference(file) for _ in range(_REPEATS)]
    return sorted(runs, key=lambda it: it.wall_s)[_REPEATS // 2]


def _run_reference(file: Path) -> Speed:
    reference = read_reference(file)
    found = run(reference.cluster(), reference.requests, {})
    return Speed(
        name=reference.name,
        num_requests=len(reference.requests),
        duration_s=found.report.duration_s,
        wall_s=found.wall_s,
    )


def fleet_requests(trace: Path, count: int) -> list[WorkloadRequest]:
    """The trace's lengths over and over, Poisson."""
    return draw_arrivals(list(islice(cycle(read_workload(trace)), count)), rate=_FLEET_RATE)


def on_fleet(requests: list[WorkloadRequest]) -> Speed:
    """64 instances of Llama-3-8B on H100s, half of them for prefill."""
    found = run(fleet(), requests, {})
    if found.errors:
        raise AssertionError(f"{len(found.errors)} requests of the fleet failed: {next(iter(found.errors.values()))}")
    return Speed(
        name=f"{_NUM_NODES * _GPUS_A_NODE} instances",
        num_requests=len(requests),
        duration_s=found.report.duration_s,
        wall_s=found.wall_s,
    )


def fleet() -> SimCluster:
    hardware = hardware_named("h100", "llama-3-8b")
    latency, block_size = hardware.model(Parallelism()), 16
    topology = racks(1, _NUM_NODES, inside=50e9, between=50e9)
    instances = tuple(
        SimInstance(
            name=f"{role.value}-{number}",
            role=role,
            node=node.name,
            latency=latency,
            num_blocks=hardware.num_kv_tokens(Parallelism()) // block_size,
            block_bytes=round(hardware.kv_bytes_per_token * block_size),
            block_size=block_size,
            max_model_len=16_384,  # of Azure's conversations the longest has 14,050
            enable_prefix_caching=False,
        )
        for at, node in enumerate(topology.nodes)
        for role in (InstanceRole.PREFILL, InstanceRole.DECODE)
        for number in range(at * _GPUS_A_NODE // 2, (at + 1) * _GPUS_A_NODE // 2)
    )
    return SimCluster(instances=instances, topology=topology)


def show(speeds: list[Speed], console: Console) -> None:
    table = Table("", "requests", "simulated, s", "took, s", "requests/s", "× DistServe's")
    for speed in speeds:
        ratio = speed.requests_per_s / DISTSERVE_REQUESTS_PER_S
        table.add_row(
            speed.name,
            f"{speed.num_requests:,}",
            f"{speed.duration_s:,.0f}",
            f"{speed.wall_s:.3g}",
            f"{speed.requests_per_s:,.0f}",
            f"{ratio:.1f}",
        )
    peak_mib = getrusage(RUSAGE_SELF).ru_maxrss / 1024
    console.print(table)
    console.print(f"peak memory of this process: {peak_mib:,.0f} MiB", highlight=False)
