"""Requests that are disturbed while they run, and the same ones left alone."""

import asyncio
from collections.abc import Awaitable, Callable

from router.client import Completion
from tests.integration.local_cluster import LocalCluster

NUM_TOKENS = 200
SAMPLED = {"max_tokens": NUM_TOKENS, "temperature": 0.9, "top_p": 0.9, "ignore_eos": True}


class Stream:
    """A request whose tokens are taken as they come."""

    def __init__(self, cluster: LocalCluster, request_id: str, seed: int) -> None:
        self._cluster, self.request_id, self._seed = cluster, request_id, seed
        self.token_ids: list[int] = []
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> list[int]:
        prompt = f"Story number {self._seed}:"
        stream = self._cluster.client.generate(prompt, request_id=self.request_id, seed=self._seed, **SAMPLED)
        async for delta in stream:
            assert delta.index == len(self.token_ids)
            self.token_ids += delta.token_ids
            self._news.set()
        return self.token_ids

    async def until(self, num_tokens: int) -> None:
        while len(self.token_ids) < num_tokens:
            self._news.clear()
            await asyncio.wait_for(self._news.wait(), 20)

    async def end(self) -> list[int]:
        return await self._task


async def undisturbed(cluster: LocalCluster, num_streams: int) -> list[tuple[int, ...]]:
    calls = [
        cluster.client.complete(f"Story number {seed}:", seed=seed, request_id=f"undisturbed{seed}", **SAMPLED)
        for seed in range(num_streams)
    ]
    done: list[Completion] = await asyncio.gather(*calls)
    return [it.token_ids for it in done]


async def disturbed(
    cluster: LocalCluster, num_streams: int, disturb: Callable[[list[Stream]], Awaitable[None]]
) -> list[tuple[int, ...]]:
    """The same requests, with `disturb` while all of them decode."""
    streams = [Stream(cluster, f"r{seed}", seed) for seed in range(num_streams)]
    await asyncio.gather(*(stream.until(5) for stream in streams))
    await disturb(streams)
    return [tuple(await stream.end()) for stream in streams]


async def owner(cluster: LocalCluster, request_id: str) -> str:
    return (await cluster.client.trace(request_id)).events[-1].instance
