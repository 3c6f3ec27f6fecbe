"""What a caller says on a stream inside the cluster, and that it ends."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from cluster.wire.greeting import fall_silent, speak

pytestmark = pytest.mark.unit


async def test_what_waits_is_said_after_the_proof_and_the_stream_ends_with_the_call() -> None:
    proof: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
    outgoing: asyncio.Queue[str | None] = asyncio.Queue()
    outgoing.put_nowait("a message")
    said = speak("hello", proof, outgoing)
    assert await anext(said) == "hello"
    proof.set_result("proof")
    assert [await anext(said), await anext(said)] == ["proof", "a message"]
    fall_silent(proof, outgoing)
    assert [message async for message in said] == []


async def test_a_call_that_is_over_before_its_proof_leaves_nobody_waiting() -> None:
    proof: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
    outgoing: asyncio.Queue[str | None] = asyncio.Queue()
    listening = asyncio.create_task(_all(speak("hello", proof, outgoing)))
    fall_silent(proof, outgoing)
    assert await listening == ["hello"]


async def _all(said: AsyncIterator[str]) -> list[str]:
    return [message async for message in said]
