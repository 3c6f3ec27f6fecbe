"""Dispatch by measured links against dispatch by load, on real links of unequal bandwidth, in turns on one cluster."""

import asyncio

import pytest
from rich.console import Console

from deploy.bench.dispatch_cluster import Replay
from deploy.workload.arrivals import draw_arrivals
from deploy.workload.request import WorkloadRequest
from tests.netns.bench_dispatch import FAR_BYTES_PER_S, PLACES, unequal, until_measured
from tests.netns.host_cluster import HostCluster
from tests.netns.inside import inside
from tests.netns.network import Network, mesh

pytestmark = pytest.mark.netns

REQUEST = WorkloadRequest(arrival_s=None, num_prompt_tokens=600, num_output_tokens=8)


@inside(lambda: mesh(4, bytes_per_s=FAR_BYTES_PER_S, rates=unequal()))
async def test_the_second_token_comes_sooner_when_links_are_taken_into_account(network: Network) -> None:
    async with HostCluster(network, PLACES) as cluster:
        await until_measured(cluster)
        replay = Replay(
            address=cluster.info.grpc_address, policies=("least_loaded", "least_time"), rate=4.0, num_rounds=2
        )
        requests = draw_arrivals([REQUEST] * 8, rate=1.0)
        compared = await asyncio.to_thread(replay.compare, "made up", requests, Console())
        assert await cluster.client.set_dispatch_policy("least_time") == "least_time"
    print(compared.figures())
    assert compared.change("least_time", "least_loaded") < -0.15
