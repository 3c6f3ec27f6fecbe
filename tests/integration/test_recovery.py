"""Whoever dies, the client's stream goes on: each token once, and the text of an undisturbed run."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from functools import partial
from http.client import HTTPConnection, HTTPException
from typing import Any

import pytest

from cluster.pb import baton_pb2
from router.client import BatonClient
from tests.integration.local_cluster import LocalCluster
from tests.integration.mortal_router import MortalRouterCluster

pytestmark = pytest.mark.integration

NUM_REQUESTS = 4
PROMPTS = [f"Story number {index}: " + "once upon a time " * index for index in range(NUM_REQUESTS)]


def options(index: int) -> dict[str, Any]:
    """Half of them greedy, half sampled."""
    return {"max_tokens": 150, "ignore_eos": True, "temperature": index % 2, "seed": index, "request_id": f"r{index}"}


Output = tuple[list[int], str, int]


async def collect(client: BatonClient, index: int, on_token: Callable[[int], None] = lambda _: None) -> Output:
    token_ids: list[int] = []
    text = ""
    async for delta in client.generate(PROMPTS[index], **options(index)):
        assert delta.index == len(token_ids), "a token was lost or came twice"
        token_ids += delta.token_ids
        text += delta.text
        on_token(len(token_ids))
    return token_ids, text, delta.finish_reason


async def collect_all(client: BatonClient) -> list[Output]:
    return await asyncio.gather(*(collect(client, index) for index in range(NUM_REQUESTS)))


async def collect_disturbed(client: BatonClient, disturb: Callable[[], Coroutine[None, None, None]]) -> list[Output]:
    """`disturb` happens when all of them decode."""
    decoding = [asyncio.Event() for _ in range(NUM_REQUESTS)]

    def follow(index: int) -> Callable[[int], None]:
        return lambda num_tokens: decoding[index].set() if num_tokens >= 10 else None

    streams = [asyncio.create_task(collect(client, index, follow(index))) for index in range(NUM_REQUESTS)]
    end = asyncio.gather(*streams)
    await asyncio.wait((end, asyncio.gather(*(event.wait() for event in decoding))), return_when="FIRST_COMPLETED")
    assert not any(stream.done() for stream in streams), end  # which says what went wrong
    await disturb()
    return await end


def assert_same(got: list[Output], expected: list[Output]) -> None:
    assert [token_ids for token_ids, _, _ in got] == [token_ids for token_ids, _, _ in expected]
    assert [text for _, text, _ in got] == [text for _, text, _ in expected]
    assert {reason for _, _, reason in got} == {baton_pb2.FINISH_REASON_LENGTH}


async def test_streams_outlive_their_router() -> None:
    async with MortalRouterCluster(num_decode=2) as cluster:
        expected = await collect_all(cluster.client)

        async def disturb() -> None:
            await cluster.kill_router()
            await cluster.start_router()

        assert_same(await collect_disturbed(cluster.client, disturb), expected)
        await cluster.until_empty()
        assert (await cluster.client.status()).term == 2


async def test_streams_outlive_their_router_and_an_instance_that_dies_with_it() -> None:
    async with MortalRouterCluster(num_decode=2) as cluster:
        expected = await collect_all(cluster.client)

        async def disturb() -> None:
            await cluster.kill_router()
            cluster.kill("decode-1")
            del cluster.infos["decode-1"]
            await cluster.start_router()

        assert_same(await collect_disturbed(cluster.client, disturb), expected)
        await cluster.until_empty()


async def test_a_resumable_http_stream_outlives_its_router() -> None:
    body = {"prompt": PROMPTS[1], "stream": True, "resumable": True, "max_tokens": 150, "ignore_eos": True, "seed": 3}
    async with MortalRouterCluster() as cluster:
        address, loop = cluster.info.http_address, asyncio.get_running_loop()
        expected, *_ = await asyncio.to_thread(read_events, address, body, "")
        has_begun = asyncio.Event()
        begin = partial(loop.call_soon_threadsafe, has_begun.set)
        reading = asyncio.create_task(asyncio.to_thread(read_events, address, body, "", begin))
        await has_begun.wait()
        await cluster.kill_router()
        first, event_id, is_done = await reading
        assert not is_done
        await cluster.start_router()
        rest, _, is_done = await asyncio.to_thread(read_events, address, body, event_id)
        assert is_done
        assert first + rest == expected
        await cluster.until_empty()


def read_events(
    address: str, body: dict[str, Any], last_event_id: str, begin: Callable[[], object] = lambda: None
) -> tuple[str, str, bool]:
    """Until the stream ends or breaks: the text, the id of the last event, and whether it ended; `begin` after ten."""
    connection = HTTPConnection(address, timeout=30)
    text, num_seen, is_done = "", 0, False
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), {"Last-Event-ID": last_event_id})
        with connection.getresponse() as response:
            assert response.status == 200, response.read()
            for line in response:
                if line.startswith(b"data: {"):
                    text += json.loads(line[6:])["choices"][0]["text"]
                elif line.startswith(b"id: "):
                    last_event_id = line[4:].decode().strip()
                    num_seen += 1
                    if num_seen == 10:
                        begin()
                is_done = is_done or line.startswith(b"data: [DONE]")
    except (OSError, HTTPException):
        pass  # broken
    finally:
        connection.close()
    return text, last_event_id, is_done


@pytest.mark.parametrize(("victim", "how"), [("decode-0", "kill"), ("decode-0", "freeze"), ("prefill-0", "kill")])
async def test_streams_of_a_lost_instance_go_on_elsewhere(victim: str, how: str) -> None:
    async with LocalCluster(num_prefill=2, num_decode=2) as cluster:
        expected = await collect_all(cluster.client)

        async def disturb() -> None:
            getattr(cluster, how)(victim)

        assert_same(await collect_disturbed(cluster.client, disturb), expected)
        await cluster.until_empty()


async def test_streams_wait_for_the_only_instance_of_its_kind_to_come_back() -> None:
    async with LocalCluster() as cluster:
        expected = await collect_all(cluster.client)

        async def disturb() -> None:
            cluster.kill("decode-0")
            await cluster.restart("decode-0")

        assert_same(await collect_disturbed(cluster.client, disturb), expected)
        await cluster.until_empty()
