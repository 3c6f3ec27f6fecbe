"""`baton bench serve --compare engine`: what the cluster costs, against the same engine without it, in one run.

The bare engine, in a process of its own with all cores of this machine, and one prefill and one decode instance take
turns at serving the same prompts; the cluster is compared with the mean of the turns before and after its own.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, median

from rich.console import Console

from cluster.handshake import draw_secret
from cluster.spec.deployment import Deployment
from cluster.spec.load import load_deployment
from cluster.spec.pool import Pool
from deploy.bench.bare_engine import Job
from deploy.bench.clients import GrpcLoad
from deploy.bench.load import measure, run_load
from deploy.bench.metrics import summarize
from deploy.bench.place import brought_up
from deploy.errors import DeployError, InputError
from deploy.target import instance_targets
from deploy.workload.prompts import PromptMaker
from deploy.workload.request import WorkloadRequest

NUM_PROMPT_TOKENS = 128
NUM_OUTPUT_TOKENS = 64
DEFAULT_NUM_REQUESTS = 64
NUM_ROUNDS = 3


def compare_with_engine(file: Path | None, num_requests: int | None, concurrency: int, console: Console) -> float:
    """The cluster's output throughput over the bare engine's: the median of the rounds."""
    if file is None:
        raise InputError("FILE is missing: the deployment whose model and engine options are compared")
    deployment = one_of_each(load_deployment(file))
    request = WorkloadRequest(arrival_s=0.0, num_prompt_tokens=NUM_PROMPT_TOKENS, num_output_tokens=NUM_OUTPUT_TOKENS)
    requests = [request] * (num_requests or DEFAULT_NUM_REQUESTS)
    console.print(
        f"{len(requests)} requests of {NUM_PROMPT_TOKENS} + {NUM_OUTPUT_TOKENS} tokens, {concurrency} at a time, "
        f"{deployment.spec.model.served_model_name}, {_num_cores()} cores"
    )
    prompts = PromptMaker(_vocab_size(deployment)).make(requests)
    job = _job(deployment, prompts, concurrency)
    with brought_up(deployment) as place, _bare_engine(job) as run_bare:
        bare, ratios = [run_bare()], []
        for number in range(1, NUM_ROUNDS + 1):
            through = _run_cluster(place.grpc_address, requests, prompts, concurrency)
            bare.append(run_bare())
            ratios.append(through / mean(bare[-2:]))
            console.print(
                f"round {number}, output tokens/s: bare engine {bare[-2]:,.0f}, 1P+1D cluster {through:,.0f}, "
                f"bare engine {bare[-1]:,.0f}: {ratios[-1]:.0%}"
            )
    console.print(f"the cluster reaches {median(ratios):.0%} of the bare engine, the median of {NUM_ROUNDS} rounds")
    return median(ratios)


def one_of_each(deployment: Deployment) -> Deployment:
    """The same model and engine options, on one prefill and one decode instance, without the caching of prefixes: the
    same prompts come in every round.
    """
    pools = {pool.role: pool for pool in reversed(deployment.spec.pools)}
    if not {"prefill", "decode"} <= pools.keys():
        raise InputError("the comparison needs a deployment with a prefill pool and a decode pool")
    single: list[Pool] = [_single(pools[role]) for role in ("prefill", "decode")]
    return deployment.model_copy(update={"spec": deployment.spec.model_copy(update={"pools": single})})


def _single(pool: Pool) -> Pool:
    engine = pool.engine.model_copy(update={"enable_prefix_caching": False})
    return pool.model_copy(update={"replicas": 1, "engine": engine})


def _num_cores() -> int:
    return len(os.sched_getaffinity(0))


def _vocab_size(deployment: Deployment) -> int:
    config = json.loads((Path(deployment.spec.model.path) / "config.json").read_text())
    return int(config["vocab_size"])


def _job(deployment: Deployment, prompts: list[list[int]], concurrency: int) -> Job:
    decode = instance_targets(deployment, draw_secret())[-1].config
    engine = {name: getattr(decode.engine, name) for name in decode.engine.__slots__}
    return Job(
        model_path=decode.model_path,
        engine={**engine, "num_threads": _num_cores()},
        prompts=prompts,
        num_output_tokens=NUM_OUTPUT_TOKENS,
        concurrency=concurrency,
    )


@contextmanager
def _bare_engine(job: Job) -> Iterator[Callable[[], float]]:
    """Loaded once; each call serves the job's prompts again and returns output tokens per second."""
    command = [sys.executable, "-m", "deploy.bench.bare_engine"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout
        print(job.to_json(), file=stdin, flush=True)

        def run() -> float:
            print(file=stdin, flush=True)
            if not (answer := stdout.readline()):
                raise DeployError("the bare engine ended early; what it said is above")
            return float(answer)

        try:
            yield run
        finally:
            process.kill()


def _run_cluster(address: str, requests: list[WorkloadRequest], prompts: list[list[int]], concurrency: int) -> float:
    async def load() -> float:
        async with GrpcLoad(address) as client:
            await measure(client, prompts[0][:16], 2)
            outcomes, duration_s = await run_load(
                client, requests, prompts, concurrency=concurrency, on_done=lambda _: None
            )
        figures = summarize(outcomes, duration_s, {})
        if figures["failed"]:
            raise DeployError(f"{figures['failed']} requests failed: {next(o.error for o in outcomes if o.error)}")
        return float(figures["output_throughput"] or 0.0)

    return asyncio.run(load())
