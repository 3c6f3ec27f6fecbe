"""Sends requests when they are due, and writes down when what came back."""

import asyncio
import time
from collections.abc import Callable, Sequence

from deploy.bench.clients import LoadClient, RequestFailed
from deploy.bench.outcome import Outcome
from deploy.workload.request import WorkloadRequest


async def run_load(
    client: LoadClient,
    requests: Sequence[WorkloadRequest],
    prompts: Sequence[list[int]],
    *,
    concurrency: int | None,
    on_done: Callable[[Outcome], None],
) -> tuple[list[Outcome], float]:
    """Outcomes in the order of the requests, and the seconds from the first request to the last answer.

    Requests without an arrival time are all due at once; `concurrency` holds back what is due while so many run.
    """
    slots = asyncio.Semaphore(concurrency or len(requests))
    start_s = time.perf_counter()

    async def send(request: WorkloadRequest, prompt: list[int]) -> Outcome:
        await asyncio.sleep(max(0.0, start_s + (request.arrival_s or 0.0) - time.perf_counter()))
        async with slots:
            outcome = await measure(client, prompt, request.num_output_tokens)
        on_done(outcome)
        return outcome

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(send(*pair)) for pair in zip(requests, prompts, strict=True)]
    return [task.result() for task in tasks], time.perf_counter() - start_s


async def measure(client: LoadClient, prompt: list[int], num_output_tokens: int) -> Outcome:
    """One request. A stream that ends well without a token is a failure: nothing was served."""
    outcome = Outcome(num_prompt_tokens=len(prompt), start_s=time.perf_counter())
    try:
        async for num_tokens in client.stream(prompt, num_output_tokens):
            if num_tokens > 0:
                outcome.token_times_s.append(time.perf_counter())
            outcome.num_output_tokens += num_tokens
    except RequestFailed as error:
        outcome.error = str(error)
    else:
        if outcome.num_output_tokens == 0:
            outcome.error = "ended without a token"
    return outcome
