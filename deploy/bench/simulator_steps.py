"""How long steps take in the real cluster, as its clients see it: the way in which `baton profile` times a bare engine.

Steps of one kind are had by asking for them: a prompt that finds nobody before it is one step, and several requests
that decode together are one step for each token. Meanwhile the other instance has as much to do as the workload will
give it: what cores share makes both slower, and so do the router and the client. So what an instance does between two
steps is in it; messages on the way are taken off.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from cluster.latency.fit import TimedStep
from cluster.latency.step_shape import StepShape
from deploy.bench.clients import GrpcLoad
from deploy.bench.load import measure
from deploy.bench.outcome import Outcome
from deploy.errors import DeployError

PROMPTS = (16, 32, 64, 128, 192, 256, 384, 512)
DECODES = ((1, 64), (2, 64), (4, 64), (8, 64), (12, 64), (1, 512), (2, 512), (4, 512), (8, 256))
"""Sequences that decode together, and the tokens of their prompts."""

_NUM_PROMPT_REPEATS = 5
_NUM_DECODED = 160
_LEAST_STEPS = 16
_ON_AND_ON = 1500
_MESSAGES_TO_FIRST_TOKEN = 4  # client, router, instance, and back


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the workload will ask for: requests a second, and their tokens in the mean."""

    rate: float
    num_prompt_tokens: int
    num_output_tokens: int


class StepTimer:
    def __init__(self, client: GrpcLoad, expected: Expected, message_s: float) -> None:
        self._client, self._expected, self._message_s = client, expected, message_s
        self._num_made = 0

    async def time_all(self) -> list[TimedStep]:
        async with self._prompts_beside():
            decodes = [step for batch, length in DECODES for step in await self._decodes(batch, length)]
        async with self._decodes_beside(expected_batch(decodes, self._expected)):
            await self._measure(PROMPTS[0], 2)  # behind the prompts of those that decode
            prefills = [await self._prefill(length) for length in PROMPTS]
        return prefills + decodes

    async def _prefill(self, length: int) -> TimedStep:
        times_s = [(await self._measure(length, 2)).ttft_s for _ in range(_NUM_PROMPT_REPEATS)]
        seconds = max(1e-6, median(times_s) - _MESSAGES_TO_FIRST_TOKEN * self._message_s)
        return TimedStep(StepShape(length, float(length**2)), seconds)

    async def _decodes(self, batch: int, length: int) -> list[TimedStep]:
        work = [self._measure(length, _NUM_DECODED) for _ in range(batch)]
        return steady_step(await asyncio.gather(*work))

    async def _measure(self, num_prompt_tokens: int, num_output_tokens: int) -> Outcome:
        self._num_made += 1
        prompt = [1 + (self._num_made * 7919 + position) % 30_000 for position in range(num_prompt_tokens)]
        outcome = await measure(self._client, prompt, num_output_tokens)
        if outcome.error:
            raise DeployError(f"a request whose steps were timed failed: {outcome.error}")
        return outcome

    @asynccontextmanager
    async def _prompts_beside(self) -> AsyncIterator[None]:
        """As many as the workload has, evenly; each is handed over for its second token."""

        async def come() -> None:
            async with asyncio.TaskGroup() as group:
                while True:
                    group.create_task(self._measure(self._expected.num_prompt_tokens, 2))
                    await asyncio.sleep(1 / self._expected.rate)

        async with _beside([come()]):
            yield

    @asynccontextmanager
    async def _decodes_beside(self, batch: int) -> AsyncIterator[None]:
        async def decode() -> None:
            while True:
                await self._measure(self._expected.num_prompt_tokens, _ON_AND_ON)

        async with _beside([decode() for _ in range(batch)]):
            yield


def steady_step(outcomes: Iterable[Outcome]) -> list[TimedStep]:
    """Of the steps in which all of them decoded: the mean one; none where these are too few to tell."""
    outcomes = list(outcomes)
    start_s = max(outcome.token_times_s[1] for outcome in outcomes)
    end_s = min(outcome.token_times_s[-1] for outcome in outcomes)
    spans, context = [], 0.0
    for outcome in outcomes:
        within = [(at, time_s) for at, time_s in enumerate(outcome.token_times_s) if start_s <= time_s <= end_s]
        if len(within) <= _LEAST_STEPS:
            return []
        (first, first_s), (last, last_s) = within[0], within[-1]
        spans.append((last_s - first_s) / (last - first))
        context += outcome.num_prompt_tokens + (first + last) / 2
    return [TimedStep(StepShape(num_decodes=len(outcomes), decode_context=round(context)), fmean(spans))]


def expected_batch(decodes: list[TimedStep], expected: Expected) -> int:
    """How many decode at a time on the average: as many as come while one does (Little)."""
    known = sorted((step.shape.num_decodes, step.seconds) for step in decodes)
    for batch, seconds in known:
        if expected.rate * expected.num_output_tokens * seconds <= batch:
            return batch
    return known[-1][0]


@asynccontextmanager
async def _beside(work: Iterable[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
