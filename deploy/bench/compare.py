"""`baton bench serve --compare engine`: what the cluster costs, against the same engine without it, in one run.

The bare engine runs before and after, in a process of its own, with all cores of this machine; between, one prefill and
one decode instance serve the same prompts on the same cores.
"""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console

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


def compare_with_engine(file: Path | None, num_requests: int | None, concurrency: int, console: Console) -> float:
    """The ratio of the cluster's output throughput to the mean of the bare engine's two."""
    if file is None:
        raise InputError("FILE is missing: the deployment whose model and engine options are compared")
    deployment = one_of_each(load_deployment(file))
    request = WorkloadRequest(arrival_s=0.0, num_prompt_tokens=NUM_PROMPT_TOKENS, num_output_tokens=NUM_OUTPUT_TOKENS)
    requests = [request] * (num_requests or DEFAULT_NUM_REQUESTS)
    prompts = PromptMaker(_vocab_size(deployment)).make(requests)
    console.print(
        f"{len(requests)} requests of {NUM_PROMPT_TOKENS} + {NUM_OUTPUT_TOKENS} tokens, {concurrency} at a time, "
        f"{deployment.spec.model.served_model_name}, {_num_cores()} cores"
    )
    job = _job(deployment, prompts, concurrency)
    before = _run_bare(job)
    console.print(f"bare engine, before: {before:,.0f} output tokens/s")
    through = _run_cluster(deployment, requests, prompts, concurrency)
    console.print(f"1P+1D cluster:       {through:,.0f} output tokens/s")
    after = _run_bare(job)
    console.print(f"bare engine, after:  {after:,.0f} output tokens/s")
    ratio = through / ((before + after) / 2)
    console.print(f"the cluster reaches {ratio:.0%} of the bare engine")
    return ratio


def one_of_each(deployment: Deployment) -> Deployment:
    """The same model and engine options, on one prefill and one decode instance."""
    pools = {pool.role: pool for pool in reversed(deployment.spec.pools)}
    if not {"prefill", "decode"} <= pools.keys():
        raise InputError("the comparison needs a deployment with a prefill pool and a decode pool")
    single: list[Pool] = [pools[role].model_copy(update={"replicas": 1}) for role in ("prefill", "decode")]
    return deployment.model_copy(update={"spec": deployment.spec.model_copy(update={"pools": single})})


def _num_cores() -> int:
    return len(os.sched_getaffinity(0))


def _vocab_size(deployment: Deployment) -> int:
    config = json.loads((Path(deployment.spec.model.path) / "config.json").read_text())
    return int(config["vocab_size"])


def _job(deployment: Deployment, prompts: list[list[int]], concurrency: int) -> Job:
    decode = instance_targets(deployment)[-1].config
    engine = {name: getattr(decode.engine, name) for name in decode.engine.__slots__}
    return Job(
        model_path=decode.model_path,
        engine={**engine, "num_threads": _num_cores()},
        prompts=prompts,
        num_output_tokens=NUM_OUTPUT_TOKENS,
        concurrency=concurrency,
    )


def _run_bare(job: Job) -> float:
    command = [sys.executable, "-m", "deploy.bench.bare_engine"]
    done = subprocess.run(command, input=job.to_json(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DeployError(f"the bare engine failed: {(done.stderr.strip().splitlines() or ['no word of it'])[-1]}")
    return float(json.loads(done.stdout)["output_throughput"])


def _run_cluster(
    deployment: Deployment, requests: list[WorkloadRequest], prompts: list[list[int]], concurrency: int
) -> float:
    async def load(address: str) -> float:
        async with GrpcLoad(address) as client:
            await measure(client, prompts[0][:16], 2)
            outcomes, duration_s = await run_load(
                client, requests, prompts, concurrency=concurrency, on_done=lambda _: None
            )
        figures = summarize(outcomes, duration_s, {})
        if figures["failed"]:
            raise DeployError(f"{figures['failed']} requests failed: {next(o.error for o in outcomes if o.error)}")
        return float(figures["output_throughput"] or 0.0)

    with brought_up(deployment) as place:
        return asyncio.run(load(place.grpc_address))
