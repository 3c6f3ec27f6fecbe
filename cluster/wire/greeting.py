"""The first message of a stream, which says who speaks."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import grpc

# Whoever opens a stream has its hello ready.
_GREETING_TIMEOUT_S = 5.0

T = TypeVar("T")


async def first_message(messages: AsyncIterator[T], context: "grpc.aio.ServicerContext[Any, Any]") -> T:
    """Ends the call when there is none in time."""
    try:
        return await asyncio.wait_for(anext(messages), _GREETING_TIMEOUT_S)
    except (TimeoutError, StopAsyncIteration):
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the stream must open with a hello")
        raise
