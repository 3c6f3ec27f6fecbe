"""What operators do to running requests, with real processes: no token is lost, changed or said twice."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

import grpc
import pytest
import pytest_asyncio

from router.policies import ReschedulingConfig
from tests.integration.local_cluster import LocalCluster
from tests.integration.streams import Stream, disturbed, owner, undisturbed

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

T = TypeVar("T")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[LocalCluster]:
    """1P + 2D. Each test waits at its end until everything is let go of, and undoes what it did."""
    async with LocalCluster(num_decode=2) as cluster:
        yield cluster


async def collect(steps: AsyncIterator[T]) -> list[T]:
    return [step async for step in steps]


async def refusal(call: Awaitable[object]) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    return caught.value.details() or ""


async def test_a_request_moves_while_it_runs_and_its_trace_names_everybody_who_held_it(cluster: LocalCluster) -> None:
    expected = await undisturbed(cluster, 3)

    async def move_one_there_and_back(streams: list[Stream]) -> None:
        home = await owner(cluster, "r0")
        away = {"decode-0": "decode-1", "decode-1": "decode-0"}[home]
        moved = await cluster.client.migrate("r0", away)
        assert (moved.source, moved.target) == (home, away)
        assert "is in " + away in await refusal(cluster.client.migrate("r0", away))
        await streams[0].until(len(streams[0].token_ids) + 5)
        await cluster.client.migrate("r0", home)

    assert await disturbed(cluster, 3, move_one_there_and_back) == expected
    events = (await cluster.client.trace("r0")).events
    assert [event.event for event in events if event.reason == "migrate"] == ["granted", "passed"] * 2
    assert {event.instance for event in events} == {"prefill-0", "decode-0", "decode-1"}
    assert events[-1].event == "finished"
    metrics = await scrape(cluster)
    moved = 'reason="migrate"'
    assert f'baton:handovers_total{{model_name="baton-tiny",outcome="passed",{moved}}} 2.0' in metrics
    assert f'baton:handover_added_gap_seconds_count{{model_name="baton-tiny",{moved}}} 2.0' in metrics
    await cluster.until_empty()


async def scrape(cluster: LocalCluster) -> str:
    host, _, port = cluster.info.http_address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    return text


async def test_what_cannot_be_moved_is_refused_with_the_reason_and_nothing_changes(cluster: LocalCluster) -> None:
    async def ask_for_nonsense(streams: list[Stream]) -> None:
        home = await owner(cluster, "r0")
        assert "unknown or over" in await refusal(cluster.client.migrate("nobody", home))
        assert "unknown or over" in await refusal(cluster.client.migrate("undisturbed0", home))
        assert f"is in {home} already" in await refusal(cluster.client.migrate("r0", home))
        assert "there is no instance 'decode-7'" in await refusal(cluster.client.migrate("r0", "decode-7"))
        assert await owner(cluster, "r0") == home

    expected = await undisturbed(cluster, 1)
    assert await disturbed(cluster, 1, ask_for_nonsense) == expected
    await cluster.until_empty()


async def test_a_drained_instance_empties_while_its_requests_run_on(cluster: LocalCluster) -> None:
    expected = await undisturbed(cluster, 4)

    async def drain(streams: list[Stream]) -> None:
        seen = await collect(cluster.client.drain("decode-1"))
        assert seen[-1].done
        assert seen[-1].num_requests == 0
        statuses = {it.instance: it for it in (await cluster.client.status()).instances}
        assert statuses["decode-1"].status == "DRAINING"
        assert statuses["decode-1"].num_sequences == 0
        assert "decode-1 is being drained" in await refusal(cluster.client.migrate("r0", "decode-1"))
        assert "is the last that can decode" in await refusal(anext(cluster.client.drain("decode-0")))

    assert await disturbed(cluster, 4, drain) == expected
    await collect(cluster.client.drain("decode-1", undo=True))
    await cluster.until(lambda status: all(it.status == "RUNNING" for it in status.instances))
    await cluster.until_empty()


async def test_requests_that_are_prefilled_or_wait_for_it_leave_a_drained_instance_too() -> None:
    slow = {"max_num_seqs": 16, "max_num_batched_tokens": 16}  # a prompt takes thirty steps
    async with LocalCluster(num_prefill=0, num_decode=0, num_mixed=2, engine=slow) as cluster:
        prompts = [f"{number}. " + "In the morning the children went to the river and " * 40 for number in range(8)]

        async def complete() -> list[tuple[int, ...]]:
            done = await asyncio.gather(
                *(cluster.client.complete(prompt, max_tokens=30, temperature=0, ignore_eos=True) for prompt in prompts)
            )
            return [it.token_ids for it in done]

        disturbed = asyncio.create_task(complete())
        await cluster.until(lambda status: status.num_running_requests + status.num_waiting_requests == len(prompts))
        progress = await collect(cluster.client.drain("mixed-0"))
        assert progress[-1].num_moved > 0
        got = await disturbed
        await collect(cluster.client.drain("mixed-0", undo=True))
        assert got == await complete()
        await cluster.until_empty()


async def test_an_instance_takes_another_role_and_keeps_it_in_its_next_life() -> None:
    async with LocalCluster(num_decode=2) as cluster:
        expected = await undisturbed(cluster, 4)

        async def flip(streams: list[Stream]) -> None:
            assert (await collect(cluster.client.flip("decode-1", "prefill")))[-1].done

        assert await disturbed(cluster, 4, flip) == expected
        roles = {it.instance: (it.role, it.status) for it in (await cluster.client.status()).instances}
        assert roles["decode-1"] == ("prefill", "RUNNING")
        assert "last that can decode" in await refusal(anext(cluster.client.flip("decode-0", "prefill")))
        cluster.kill("decode-1")
        await cluster.restart("decode-1")
        await cluster.until(lambda status: {it.instance: it.role for it in status.instances}["decode-1"] == "prefill")
        assert await undisturbed(cluster, 4) == expected
        await cluster.until_empty()


async def test_requests_leave_an_instance_whose_memory_runs_out_by_themselves() -> None:
    """All start in one of two decode instances, since the other is drained; then that one is let in again."""
    rescheduling = ReschedulingConfig(interval_s=0.1, source_below_steps=120.0, target_above_steps=120.0)
    small = {"kv_cache_memory_bytes": 80 * 48 << 10}  # 80 blocks: with six requests half-way 120 steps are left
    async with LocalCluster(num_decode=2, router={"rescheduling": rescheduling}, engine=small) as cluster:
        expected = await undisturbed(cluster, 6)
        await collect(cluster.client.drain("decode-1"))

        async def let_it_in(streams: list[Stream]) -> None:
            await collect(cluster.client.drain("decode-1", undo=True))

        assert await disturbed(cluster, 6, let_it_in) == expected
        traces = [(await cluster.client.trace(f"r{index}")).events for index in range(6)]
        reasons = [[event.reason for event in events if event.event == "passed"] for events in traces]
        assert any("balance" in of_one for of_one in reasons)
        assert all(of_one.count("balance") <= 1 for of_one in reasons), "nobody goes back and forth"
        await cluster.until_empty()
