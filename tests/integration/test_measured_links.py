"""Links that the router knows: probed between real processes, learned from real transfers, shown and drawn."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from cluster.pb import baton_pb2
from cluster.topology.read import read_topology
from deploy.cli import main
from tests.integration.local_cluster import LocalCluster
from tests.integration.test_operations import scrape

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

NODES = {"prefill-0": "host-p", "decode-0": "host-d", "decode-1": "host-d"}
PAIRS = {("host-p", "host-d"), ("host-d", "host-p"), ("host-d", "host-d")}
MEASURED = {"good", "degraded"}  # which of them depends on what else this machine has to do
PNG = b"\x89PNG\r\n\x1a\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[LocalCluster]:
    """A prefill instance on one node, two decode instances on another."""
    async with LocalCluster(num_decode=2, nodes=NODES, links={"transport": "tcp"}) as cluster:
        yield cluster


def rows(status: baton_pb2.ClusterStatus) -> dict[tuple[str, str], baton_pb2.NodeLinkStatus]:
    return {(row.source_node, row.target_node): row for row in status.node_links}


async def run(cluster: LocalCluster, *arguments: str) -> int:
    """A command against the cluster; its exit code."""

    def call() -> int:
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--address", cluster.info.grpc_address])
        return int(ended.value.code or 0)

    return await asyncio.to_thread(call)


async def test_every_link_is_known_soon_after_the_start_without_anybody_asking(cluster: LocalCluster) -> None:
    await cluster.until(lambda status: all(row.state in MEASURED for row in status.node_links), 30)
    found = rows(await cluster.client.status())
    assert set(found) == PAIRS
    assert all(row.transport == "tcp" and row.num_samples > 0 and row.num_connections >= 1 for row in found.values())
    assert all(1e6 < row.beta_bytes_per_s < 1e12 and 0.0 <= row.alpha_s < 1.0 for row in found.values())


async def test_transfers_are_samples_of_their_link(cluster: LocalCluster) -> None:
    before = rows(await cluster.client.status())["host-p", "host-d"].num_samples
    prompts = [f"Tale {number}: " + "once upon a time " * 12 for number in range(4)]
    await asyncio.gather(*(cluster.client.complete(prompt, max_tokens=8, seed=1) for prompt in prompts))
    await cluster.until(lambda status: rows(status)["host-p", "host-d"].num_samples > before, 20)
    await cluster.until_empty()


async def test_probe_measures_every_link_once_more(cluster: LocalCluster) -> None:
    steps = [step async for step in cluster.client.probe(0.2)]
    assert (steps[0].num_links, steps[0].done) == (3, False)
    last = steps[-1]
    assert (last.done, last.num_done, last.num_failed) == (True, 3, 0)
    assert {(row.source_node, row.target_node) for row in last.links} == PAIRS
    assert all(row.age_s < 10.0 and row.state in MEASURED for row in last.links)
    instances = {node.node: list(node.instances) for node in last.nodes}
    assert instances == {"host-p": ["prefill-0"], "host-d": ["decode-0", "decode-1"]}
    await cluster.until_empty()


async def test_the_command_prints_draws_and_saves(
    cluster: LocalCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, saved, everything = tmp_path / "links.png", tmp_path / "net.yaml", tmp_path / "links.json"
    files = ("--plot", str(picture), "--save", str(saved), "--json", str(everything))
    assert await run(cluster, "probe", "--budget", "0.2", *files) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("host-p → host-d", "within host-d", "tcp"))
    assert picture.read_bytes().startswith(PNG)
    topology = read_topology(saved.read_text(), str(saved))
    assert {node.name for node in topology.nodes} == {"host-p", "host-d"}
    assert topology.link("host-p", "host-d") is not None
    assert len(json.loads(everything.read_text())["links"]) == 3
    assert await run(cluster, "status") == 0
    assert "host-p" in capsys.readouterr().out


async def test_metrics_have_the_links_between_nodes(cluster: LocalCluster) -> None:
    metrics = await scrape(cluster)
    ends = 'source_node="host-p",target_node="host-d",transport="tcp"'
    assert f"baton:node_link_beta_bytes_per_second{{{ends}}}" in metrics
    assert 'baton:node_link_state{source_node="host-p"' in metrics


async def test_a_node_whose_instances_died_holds_no_probe_up(cluster: LocalCluster) -> None:
    cluster.kill("decode-1")
    steps = [step async for step in cluster.client.probe(0.2)]
    assert steps[-1].done
    states = {(row.source_node, row.target_node): row.state for row in steps[-1].links}
    assert {states["host-p", "host-d"], states["host-d", "host-p"]} <= MEASURED
    await cluster.restart("decode-1")
