"""Work for a client that may hang up."""

import asyncio
from collections.abc import Coroutine

from starlette.types import Receive


async def until_disconnect(receive: Receive, work: Coroutine[None, None, None]) -> None:
    """Runs `work`, and cancels it as soon as the client is gone. The request's body must have been read."""
    working = asyncio.create_task(work)
    gone = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        if not working.done():
            working.cancel()
        await asyncio.wait((working, gone))
    if not working.cancelled():
        working.result()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
