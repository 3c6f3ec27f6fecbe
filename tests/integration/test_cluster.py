"""Real processes, real sockets: what a user relies on, with the bundled model."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from cluster.engine.sequence import FinishReason
from cluster.pb import baton_pb2
from router.client import Completion
from tests.integration.local_cluster import LocalCluster

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[LocalCluster]:
    """1P + 1D, for the tests that break nothing. Each waits at its end until everything is let go of."""
    async with LocalCluster() as cluster:
        yield cluster


PROMPTS = [
    "Once upon a time there was",
    "The old lighthouse",
    "What is a baton? " * 20,
    "In the morning the children went to the river and " * 12,
]
GREEDY = {"max_tokens": 40, "temperature": 0}
SAMPLED = {"max_tokens": 40, "temperature": 0.9, "top_p": 0.9, "seed": 7}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def expected() -> dict[str, list[Completion]]:
    """What one instance, which hands nothing over, says to all prompts."""
    async with LocalCluster(num_prefill=0, num_decode=0, num_mixed=1) as alone:
        return {"greedy": await complete_all(alone, **GREEDY), "sampled": await complete_all(alone, **SAMPLED)}


def assert_same(got: list[Completion], expected: list[Completion]) -> None:
    assert [it.token_ids for it in got] == [it.token_ids for it in expected]
    assert all(it.text and it.finish_reason in (FinishReason.STOP, FinishReason.LENGTH) for it in got)


async def complete_all(cluster: LocalCluster, **options: object) -> list[Completion]:
    return await asyncio.gather(*(cluster.client.complete(prompt, **options) for prompt in PROMPTS))


async def start(cluster: LocalCluster, num_requests: int, max_tokens: int = 400) -> list["asyncio.Task[str]"]:
    """Requests that decode, each with its first tokens out."""
    started = [asyncio.Event() for _ in range(num_requests)]

    async def run(index: int) -> str:
        stream = cluster.client.generate(
            f"Story number {index}:", max_tokens=max_tokens, ignore_eos=True, request_id=f"r{index}"
        )
        try:
            async for delta in stream:
                if delta.index >= 3:
                    started[index].set()
                if delta.finish_reason:
                    return baton_pb2.FinishReason.Name(delta.finish_reason)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        finally:
            started[index].set()
        return "ended without a finish reason"

    tasks = [asyncio.create_task(run(index)) for index in range(num_requests)]
    await asyncio.gather(*(event.wait() for event in started))
    return tasks


Expected = dict[str, list[Completion]]


@pytest.mark.parametrize("transport", ["shm", "tcp"])
async def test_the_same_tokens_wherever_they_are_computed(transport: str, expected: Expected) -> None:
    async with LocalCluster(links={"transport": transport}) as cluster:
        assert_same(await complete_all(cluster, **GREEDY), expected["greedy"])
        assert_same(await complete_all(cluster, **SAMPLED), expected["sampled"])
        (link,) = (link for link in cluster.service.router.status().links if link.source == "prefill-0")
        assert link.transport == transport
        assert link.num_transfers >= len(PROMPTS)
        await cluster.until_empty()


async def test_small_blocks_small_chunks_and_little_memory_change_no_token(expected: Expected) -> None:
    tight = {"block_size": 4, "max_num_batched_tokens": 24, "kv_cache_memory_bytes": 1 << 20, "max_num_seqs": 8}
    async with LocalCluster(num_decode=2, engine=tight) as cluster:
        assert_same(await complete_all(cluster, **GREEDY), expected["greedy"])
        await cluster.until_empty()


@pytest.mark.parametrize(
    ("transport", "fault"),
    [
        ("shm", "links.receive.record=flip"),
        ("tcp", "links.receive.record=flip"),
        ("tcp", "links.source.batch=cut"),
        ("shm", "links.receive.record=stall:3"),
    ],
)
async def test_damaged_lost_or_stalled_blocks_cost_no_token_and_change_none(
    transport: str, fault: str, expected: Expected
) -> None:
    """The receiver refuses what it cannot trust, and the request decodes where its KV is."""
    links = {"transport": transport, "transfer_timeout_s": 1.0}
    async with LocalCluster(links=links, failpoints=fault) as cluster:
        assert_same(await complete_all(cluster, **GREEDY), expected["greedy"])
        await cluster.until(lambda status: any(link.num_failures for link in status.links))
        await cluster.until_empty()


def moved_bytes(status: baton_pb2.ClusterStatus) -> int:
    return sum(link.num_bytes for link in status.links)


async def test_a_second_prompt_with_the_same_beginning_moves_less(cluster: LocalCluster) -> None:
    """Both ends know the blocks by their content: neither computes nor sends them again."""
    await cluster.client.complete(PROMPTS[3], max_tokens=4)
    await cluster.until(lambda status: moved_bytes(status) > 0)
    first = moved_bytes(cluster.service.router.status())
    again = await cluster.client.complete(PROMPTS[3], max_tokens=4)
    await cluster.until(lambda status: moved_bytes(status) > first)
    assert moved_bytes(cluster.service.router.status()) - first < first / 2
    assert again.num_cached_tokens > 0


async def test_a_client_that_leaves_takes_its_blocks_along_within_a_second(cluster: LocalCluster) -> None:
    tasks = await start(cluster, 4)
    for task in tasks:
        task.cancel()
    await cluster.until(lambda status: status.num_running_requests == 0, timeout_s=1.0)
    await asyncio.wait_for(cluster.until_empty(), 1.0)


async def test_an_abort_ends_the_stream_and_frees_both_sides(cluster: LocalCluster) -> None:
    (task,) = await start(cluster, 1)
    assert await cluster.client.abort("r0")
    assert await task == "CANCELLED"
    await cluster.until_empty()


async def test_a_deadline_ends_the_request_everywhere(cluster: LocalCluster) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cluster.client.complete("Once", max_tokens=10_000, ignore_eos=True, timeout_s=0.5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await cluster.until_empty()


@pytest.mark.parametrize("how", ["kill", "freeze"])
async def test_streams_without_an_instance_to_go_on_with_end_with_an_error_in_time(how: str) -> None:
    async with LocalCluster(router={"no_instance_timeout_s": 0.5}) as cluster:
        tasks = await start(cluster, 3)
        getattr(cluster, how)("decode-0")
        limit_s = 1.5 if how == "kill" else 3.0  # two seconds to suspect it, the rest for a busy machine
        ends = await asyncio.wait_for(asyncio.gather(*tasks), limit_s)
        assert set(ends) == {"UNAVAILABLE"}
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await cluster.client.complete("The sun", max_tokens=5)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await cluster.until_empty()


async def test_a_frozen_instance_that_wakes_up_has_no_say_and_serves_again() -> None:
    async with LocalCluster() as cluster:
        tasks = await start(cluster, 3)
        cluster.freeze("decode-0")
        await cluster.until(lambda status: any(it.status == "FAILED" for it in status.instances))
        cluster.thaw("decode-0")
        assert set(await asyncio.gather(*tasks)) == {"FINISH_REASON_LENGTH"}
        assert (await cluster.client.complete("The sun", max_tokens=5)).token_ids
        await cluster.until_empty()


async def test_an_instance_in_a_new_life_is_reached_over_new_links_and_the_peers_that_lived_on_are_unharmed() -> None:
    async with LocalCluster(num_decode=1) as cluster:
        before = await complete_all(cluster, **GREEDY)
        for victim in ("decode-0", "prefill-0"):
            cluster.kill(victim)
            await cluster.restart(victim)
            assert_same(await complete_all(cluster, **GREEDY), before)
        await cluster.until_empty()


async def test_a_full_queue_refuses_at_once_with_a_hint() -> None:
    tiny = {"kv_cache_memory_bytes": 1 << 18, "max_num_seqs": 1}
    async with LocalCluster(router={"max_queued_requests": 2}, engine=tiny) as cluster:
        calls = [cluster.client.complete(f"Story {index}", max_tokens=20, ignore_eos=True) for index in range(40)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        refused = [it for it in results if isinstance(it, grpc.aio.AioRpcError)]
        assert refused
        assert {it.code() for it in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert all("try again" in (it.details() or "") for it in refused)
        assert any(isinstance(it, Completion) for it in results)
        await cluster.until_empty()
