"""`baton bench dispatch --cluster` on four hosts, two that prefill and two that decode, a cable for every pair.

`python -m tests.netns.bench_dispatch unequal|mild|equal [OPTIONS of baton bench dispatch]`: with unequal links, each of
the two that prefill has one that decodes nearby and one far away, behind a tenth of the rate (mild: a third). Not a
test: it says how much, and takes its time.
"""

import asyncio
import itertools
import os
import subprocess
import sys

from tests.integration.baton_process import BATON
from tests.netns.host_cluster import HostCluster
from tests.netns.hosts import ROOT, why_not
from tests.netns.inside import NETWORK_VARIABLE
from tests.netns.network import Network, Way, mesh

PLACES = {"prefill-0": "a", "prefill-1": "b", "decode-0": "c", "decode-1": "d"}
NEAR_BYTES_PER_S, FAR_BYTES_PER_S = 25e6, 2.5e6
NEAR = [("a", "c"), ("b", "d")]
KV_BYTES = 128 << 20


def unequal() -> dict[Way, float]:
    return dict.fromkeys(NEAR, NEAR_BYTES_PER_S)


def mild() -> dict[Way, float]:
    return {way: rate / 3 for way, rate in equal().items()} | unequal()


def equal() -> dict[Way, float]:
    return dict.fromkeys(itertools.combinations("abcd", 2), NEAR_BYTES_PER_S)


async def until_measured(cluster: HostCluster) -> None:
    """Nothing is left to be probed because nothing is known of it."""
    rows = cluster.service.router.links.link_rows
    await cluster.until(lambda _: all(row.state != "unknown" for row in rows()), timeout_s=60)


async def bench(network: Network, options: list[str]) -> int:
    async with HostCluster(network, PLACES, engine={"kv_cache_memory_bytes": KV_BYTES}) as cluster:
        await until_measured(cluster)
        command = [str(BATON), "bench", "dispatch", "--cluster", cluster.info.grpc_address, *options]
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT)
        return await process.wait()


RATES = {"unequal": unequal, "mild": mild, "equal": equal}


def main(which: str, options: list[str]) -> int:
    if text := os.environ.get(NETWORK_VARIABLE):
        return asyncio.run(bench(Network.from_json(text), options))
    if reason := why_not():
        sys.exit(reason)
    with mesh(4, bytes_per_s=FAR_BYTES_PER_S, rates=RATES[which]()) as network:
        command = [*network.hosts[0].enter, sys.executable, "-m", "tests.netns.bench_dispatch", which, *options]
        env = {**os.environ, NETWORK_VARIABLE: network.to_json()}
        return subprocess.run(command, cwd=ROOT, env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
