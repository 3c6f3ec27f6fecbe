"""The engine without a cluster around it, in a process of its own: what the cluster is compared with.

Its first line of stdin is a job in JSON; for every further one it serves all of it again, and answers with a line of
output tokens per second.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass

from cluster.engine.engine import Engine
from cluster.engine.sampling_params import SamplingParams
from cluster.engine.sequence import Sequence
from cluster.handshake import draw_secret
from cluster.instance.config import EngineConfig, InstanceConfig
from cluster.instance.loading import LoadedEngine, load_engine
from cluster.role import InstanceRole
from deploy.roles import ROLE_POLICIES


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """`prompts` are served in order, `concurrency` at a time, `num_output_tokens` each."""

    model_path: str
    engine: dict[str, object]
    prompts: list[list[int]]
    num_output_tokens: int
    concurrency: int

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def load(job: Job) -> LoadedEngine:
    config = InstanceConfig(
        name="bare",
        role=InstanceRole.MIXED,
        model_path=job.model_path,
        secret=draw_secret(),
        engine=EngineConfig(**job.engine),  # type: ignore[arg-type]
    )
    return load_engine(config, ROLE_POLICIES[InstanceRole.MIXED], lambda _: None)


def run(engine: Engine, job: Job) -> float:
    """Output tokens per second, from the first step to the last; a short request warms up before."""
    serve(engine, [prompt[:16] for prompt in job.prompts[:1]], 2, 1)
    start_s = time.perf_counter()
    num_tokens = serve(engine, job.prompts, job.num_output_tokens, job.concurrency)
    return num_tokens / (time.perf_counter() - start_s)


def serve(engine: Engine, prompts: list[list[int]], num_output_tokens: int, concurrency: int) -> int:
    """As a client would that keeps `concurrency` requests under way; returns the number of tokens made."""
    waiting = [_sequence(index, prompt, num_output_tokens) for index, prompt in reversed(list(enumerate(prompts)))]
    num_running = num_tokens = 0
    while waiting or num_running:
        while waiting and num_running < concurrency:
            engine.scheduler.add(waiting.pop())
            num_running += 1
        result = engine.step()
        num_tokens += len(result.tokens)
        num_running -= len(result.finished)
    return num_tokens


def _sequence(index: int, prompt: list[int], num_output_tokens: int) -> Sequence:
    return Sequence(
        request_id=str(index),
        prompt_token_ids=tuple(prompt),
        sampling_params=SamplingParams(temperature=0.0, max_tokens=num_output_tokens),
        arrival_time_s=float(index),
    )


def main() -> None:
    job = Job(**json.loads(sys.stdin.readline()))
    loaded = load(job)
    for _ in sys.stdin:
        print(run(loaded.engine, job), flush=True)


if __name__ == "__main__":
    main()
