"""Tokens on their way from the ledger to one client."""

import asyncio
from collections.abc import Callable

from router.errors import BatonError
from router.generation import TokenDelta


class RequestStream:
    """What a front iterates over. It is unbounded: nobody can hold up the step message that many requests share."""

    def __init__(self, on_close: Callable[[], None]) -> None:
        self._on_close = on_close
        self._queue: asyncio.Queue[TokenDelta | BatonError] = asyncio.Queue()
        self._is_over = False

    def put(self, item: TokenDelta | BatonError) -> None:
        self._queue.put_nowait(item)

    def __aiter__(self) -> "RequestStream":
        return self

    async def __anext__(self) -> TokenDelta:
        if self._is_over:
            raise StopAsyncIteration
        item = await self._queue.get()
        if isinstance(item, BatonError):
            self._is_over = True
            raise item
        self._is_over = item.finish_reason is not None
        return item

    async def aclose(self) -> None:
        self._is_over = True
        self._on_close()
