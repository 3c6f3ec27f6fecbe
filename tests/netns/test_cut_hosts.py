"""Hosts that cannot be reached, by anybody or by each other: nothing is lost, and what is left serves."""

import asyncio

import pytest

from cluster.pb import baton_pb2
from router.client import Completion
from tests.netns.host_cluster import HostCluster
from tests.netns.inside import inside
from tests.netns.network import Network, mesh

pytestmark = pytest.mark.netns

PROMPTS = [f"Story number {index}: once upon a time there was " * 4 for index in range(6)]


async def complete_all(cluster: HostCluster, max_tokens: int = 120) -> list[tuple[int, ...]]:
    options = {"max_tokens": max_tokens, "temperature": 0, "ignore_eos": True}
    done: list[Completion] = await asyncio.gather(*(cluster.client.complete(prompt, **options) for prompt in PROMPTS))
    return [completion.token_ids for completion in done]


def decodes(status: baton_pb2.ClusterStatus, name: str) -> bool:
    return any(it.instance == name and it.num_running for it in status.instances)


def is_lost(status: baton_pb2.ClusterStatus, name: str) -> bool:
    return not any(it.instance == name and it.status == "RUNNING" for it in status.instances)


@inside(lambda: mesh(3))
async def test_a_host_that_is_cut_off_and_rejoins_loses_no_request(network: Network) -> None:
    places = {"prefill-0": "a", "decode-0": "b", "decode-1": "c"}
    async with HostCluster(network, places) as cluster:
        expected = await complete_all(cluster)
        running = asyncio.create_task(complete_all(cluster))
        await cluster.until(lambda status: decodes(status, "decode-1"))
        network.cut_off("c")
        assert await running == expected
        assert await complete_all(cluster) == expected
        network.rejoin("c")
        await cluster.until(lambda status: not is_lost(status, "decode-1"), timeout_s=30)
        running = asyncio.create_task(complete_all(cluster))
        await cluster.until(lambda status: decodes(status, "decode-1"))
        assert await running == expected
        await cluster.until_empty()


@inside(lambda: mesh(3))
async def test_hosts_that_reach_the_router_but_not_each_other_still_serve(network: Network) -> None:
    places = {"prefill-0": "b", "decode-0": "c"}
    async with HostCluster(network, places, handover={"reserve_timeout_s": 1.0, "lease_s": 1.0}) as cluster:
        expected = await complete_all(cluster)
        network.cut("b", "c")
        assert await complete_all(cluster) == expected
        network.mend("b", "c")
        running = asyncio.create_task(complete_all(cluster))
        await cluster.until(lambda status: decodes(status, "decode-0"), timeout_s=60)
        assert await running == expected
        await cluster.until_empty()
