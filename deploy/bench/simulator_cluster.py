"""The real side of `baton bench simulator`: one prefill and one decode instance, a core each, and what is measured."""

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from cluster.latency.fit import TimedStep
from cluster.model.random_checkpoint import make_random_checkpoint
from cluster.pb import baton_pb2
from cluster.spec.deployment import Deployment
from cluster.spec.load import parse_deployment, resolve_model_path
from cluster.spec.yaml_source import YamlSource
from cluster.topology.topology import Topology
from deploy.bench.clients import GrpcLoad
from deploy.bench.engine import DEFAULT_SHAPE
from deploy.bench.load import measure, run_load
from deploy.bench.outcome import Outcome
from deploy.bench.place import brought_up
from deploy.bench.serve import wait_until_idle
from deploy.bench.simulator_steps import PROMPTS, Expected, StepTimer
from deploy.client import connect, fetch_status
from deploy.errors import DeployError, InputError
from deploy.live_topology import topology_of
from deploy.workload.request import WorkloadRequest

NUM_CORES = 2
TOKEN_BUDGET = max(PROMPTS)
"""Said rather than measured at start: both sides then cut prompts alike."""

_PROBE_S = 1.0
_NUM_PINGS = 50


class RealCluster:
    """`message_s`: one way between a client and the router, which is what a message between processes here takes."""

    def __init__(self, address: str) -> None:
        self.address = address
        with connect(address) as stub:
            self.message_s = _ping_s(stub) / 2
            self.topology = _probe(stub)

    def serve(self, requests: list[WorkloadRequest], prompts: list[list[int]]) -> tuple[list[Outcome], float]:
        """Outcomes in the order of the requests, and the seconds that they took. DeployError if one failed."""
        outcomes, duration_s = asyncio.run(self._serve(requests, prompts))
        if errors := [outcome.error for outcome in outcomes if outcome.error]:
            raise DeployError(f"{len(errors)} requests failed: {errors[0]}")
        return outcomes, duration_s

    def time_steps(self, expected: Expected) -> list[TimedStep]:
        return asyncio.run(self._time_steps(expected))

    async def _serve(self, requests: list[WorkloadRequest], prompts: list[list[int]]) -> tuple[list[Outcome], float]:
        async with GrpcLoad(self.address) as client:
            await measure(client, prompts[0][:16], 2)  # makes the connection
            return await run_load(client, requests, prompts, concurrency=None, on_done=lambda _: None)

    async def _time_steps(self, expected: Expected) -> list[TimedStep]:
        async with GrpcLoad(self.address) as client:
            await measure(client, [1] * 16, 2)
            steps = await StepTimer(client, expected, self.message_s).time_all()
        if left := wait_until_idle(self.address):
            raise DeployError(f"after the timing of steps {left[0]}")
        return steps


@contextmanager
def checkpoint() -> Iterator[Path]:
    """The folder of a random model of the shape that `baton bench engine` takes, for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as folder:
        yield make_random_checkpoint(Path(folder) / "model", **DEFAULT_SHAPE)


def one_of_each(model: Path) -> Deployment:
    """A prefill and a decode instance, without the caching of prefixes: prompts that were drawn have none in common."""
    engine = {"num_threads": 1, "max_num_batched_tokens": TOKEN_BUDGET, "enable_prefix_caching": False}
    pools = [
        {"name": role, "role": role, "resources": {"cpus": 1.0}, "engine": engine} for role in ("prefill", "decode")
    ]
    document: dict[str, Any] = {
        "apiVersion": "baton/v1",
        "kind": "Deployment",
        "metadata": {"name": "bench-simulator"},
        "spec": {"model": {"path": str(model)}, "pools": pools, "fronts": {"grpc": {"port": 0}, "http": {"port": 0}}},
    }
    source = YamlSource(name="bench simulator", data=document, lines={})
    return resolve_model_path(parse_deployment(source), model)


def two_cores() -> list[int]:
    """InputError where there are fewer."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < NUM_CORES:
        raise InputError(f"an instance needs a core to itself: {NUM_CORES} are needed, {len(cores)} are there")
    return cores[:NUM_CORES]


@contextmanager
def real_cluster(deployment: Deployment, cores: list[int]) -> Iterator[RealCluster]:
    """Up, each instance on a core of its own, and what is between them measured."""
    with brought_up(deployment) as place:
        pids = {each.instance: each.pid for each in fetch_status(place.grpc_address).instances}
        for name, core in zip(("prefill-0", "decode-0"), cores, strict=True):
            pin(pids[name], core)
        yield RealCluster(place.grpc_address)


def pin(pid: int, core: int) -> None:
    """All threads that the process has; those that it makes later are on the core of the thread that makes them."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


def _ping_s(stub: Any) -> float:
    times = []
    for _ in range(_NUM_PINGS):
        start = time.perf_counter()
        stub.GetModelInfo(baton_pb2.GetModelInfoRequest(), timeout=5.0)
        times.append(time.perf_counter() - start)
    return median(times)


def _probe(stub: Any) -> Topology:
    *_, found = stub.Probe(baton_pb2.ProbeRequest(budget_s=_PROBE_S))
    if not found.done or found.num_failed:
        raise DeployError("the link between the instances could not be measured")
    return topology_of(found.nodes, found.links)
