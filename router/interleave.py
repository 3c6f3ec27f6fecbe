"""Several streams as one, each item with the number of its stream."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")


async def interleave(streams: Sequence[AsyncGenerator[T]]) -> AsyncGenerator[tuple[int, T]]:
    """Items as they come. The first error ends all; closing this closes all."""
    if len(streams) == 1:
        async with aclosing(streams[0]) as only:
            async for each in only:
                yield 0, each
        return
    queue: asyncio.Queue[tuple[int, T] | Exception | None] = asyncio.Queue()
    tasks = [asyncio.create_task(_pump(index, stream, queue)) for index, stream in enumerate(streams)]
    try:
        num_open = len(streams)
        while num_open:
            item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                num_open -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(index: int, stream: AsyncGenerator[T], queue: asyncio.Queue[tuple[int, T] | Exception | None]) -> None:
    """Puts all of the stream into the queue, and then None or its error."""
    try:
        async with aclosing(stream):
            async for item in stream:
                queue.put_nowait((index, item))
        queue.put_nowait(None)
    except Exception as error:
        queue.put_nowait(error)
