"""The demonstration: the same stories told twice, undisturbed, and while one moves and an instance is killed."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from router.client import BatonClient

PROMPTS = ("Once upon a time", "The old lighthouse", "In the morning the children", "A small boat")
MAX_TOKENS = 320
MIGRATE_AT, KILL_AT = 60, 130
TIMEOUT_S = 120.0

Say = Callable[[str], None]
Disturb = Callable[[Sequence["Story"]], Coroutine[Any, Any, None]]


@dataclass(slots=True, kw_only=True, eq=False)
class Story:
    """One request, as far as its tokens have come. `holder`: the instance that was last seen to have it."""

    number: int
    request_id: str
    prompt: str
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    holder: str = ""
    holders: str = ""
    is_over: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    async def follow(self, client: BatonClient) -> None:
        """To its end. Every token has to be the next one."""
        options: dict[str, Any] = {"request_id": self.request_id, "seed": self.number, "temperature": 0.8}
        try:
            async for delta in client.generate(self.prompt, max_tokens=MAX_TOKENS, ignore_eos=True, **options):
                assert delta.index == self.num_tokens, "a token came twice, or was left out"
                self.token_ids += delta.token_ids
                self.text += delta.text
                self.news.set()
        finally:
            self.is_over = True
            self.news.set()

    async def until(self, num_tokens: int) -> None:
        """It has so many tokens, or is over."""
        while self.num_tokens < num_tokens and not self.is_over:
            self.news.clear()
            await self.news.wait()


class Demo:
    """`say` is told what happens; `stories` are those being told, for whoever shows them."""

    def __init__(self, client: BatonClient, say: Say) -> None:
        self._client = client
        self._say = say
        self.stories: list[Story] = []
        self.num_migrated = self.num_killed = 0

    async def undisturbed(self) -> list[Story]:
        return await self._tell("undisturbed")

    async def disturbed(self) -> list[Story]:
        stories = await self._tell("disturbed", self._disturb)
        for story in stories:
            await self._look_up(story)
        return stories

    async def _tell(self, name: str, disturb: Disturb | None = None) -> list[Story]:
        self.stories = stories = [
            Story(number=number, request_id=f"{name}-{number}", prompt=prompt)
            for number, prompt in enumerate(PROMPTS, start=1)
        ]
        async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as tasks:
            for story in stories:
                tasks.create_task(story.follow(self._client))
            if disturb is not None:
                tasks.create_task(disturb(stories))
        return stories

    async def _disturb(self, stories: Sequence[Story]) -> None:
        await asyncio.gather(*(story.until(MIGRATE_AT) for story in stories))
        await self._migrate(stories[0])
        await asyncio.gather(*(story.until(KILL_AT) for story in stories))
        await self._kill_holder_of(stories[1], stories)

    async def _migrate(self, story: Story) -> None:
        await self._look_up(story)
        status = await self._client.status()
        others = [it.instance for it in status.instances if it.role == "decode" and it.instance != story.holder]
        at = story.num_tokens
        moved = await self._client.migrate(story.request_id, others[0])
        self.num_migrated += 1
        story.holder = moved.target
        self._say(f"story {story.number} has moved from {moved.source} to {moved.target}, after token {at}")

    async def _kill_holder_of(self, story: Story, stories: Sequence[Story]) -> None:
        for it in stories:
            await self._look_up(it)
        victim = story.holder
        status = await self._client.status()
        [pid] = [it.pid for it in status.instances if it.instance == victim]
        hit = [it for it in stories if it.holder == victim and not it.is_over]
        os.kill(pid, signal.SIGKILL)
        self.num_killed += bool(hit)
        names = ", ".join(f"{it.number} (at token {it.num_tokens})" for it in hit)
        self._say(f"{victim}, process {pid}, is killed with kill -9; it held the stories {names}")
        for it in hit:
            await it.until(it.num_tokens + 3)  # the first comes from where its tokens are computed again
            await self._look_up(it)
            self._say(f"story {it.number} goes on, in {it.holder}")

    async def _look_up(self, story: Story) -> None:
        trace = await self._client.trace(story.request_id)
        held = [event.instance for event in trace.events if event.instance]
        story.holders = " → ".join(name for index, name in enumerate(held) if name not in held[index - 1 : index])
        story.holder = held[-1] if held else ""


def differences(expected: Sequence[Story], got: Sequence[Story]) -> list[str]:
    """What is not the same, in words."""
    found = []
    for before, after in zip(expected, got, strict=True):
        if before.token_ids != after.token_ids:
            pairs = zip(before.token_ids, after.token_ids, strict=False)
            shorter = min(before.num_tokens, after.num_tokens)
            first = next((index for index, (old, new) in enumerate(pairs) if old != new), shorter)
            found.append(f"story {before.number} is another from token {first} on")
        elif before.text != after.text:
            found.append(f"story {before.number} has the same tokens and another text")
    return found


def explain(error: BaseException) -> str:
    """The first thing that went wrong, as a line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    if isinstance(error, TimeoutError):
        return f"the stories were not over after {TIMEOUT_S:.0f} s"
    return f"{type(error).__name__}: {error}"
