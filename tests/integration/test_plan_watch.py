"""`baton plan --watch --apply` on instances that run: it sees what comes, and gives them other roles."""

import asyncio

import pytest
import yaml

from cluster.spec.load import load_deployment
from deploy.cli.operate import flip
from deploy.planning.asked import Asked, question_of
from deploy.planning.live_cluster import LiveCluster, fixed_instances
from deploy.planning.watch import Watch, WatchConfig
from tests.integration.local_cluster import MODEL_PATH, LocalCluster

pytestmark = pytest.mark.integration

# Decode steps grow with their batch, and prompts cost next to nothing: whoever prefills could decode as well.
PROFILE = """apiVersion: baton/v1
kind: LatencyModel
model_name: baton-tiny
kv_bytes_per_token: 1024
kv_memory_bytes: 64MiB
prefill: {fixed_s: 1.0e-3, s_per_token: 1.0e-6, s_per_square: 0}
decode:
  - {from_batch: 0, fixed_s: 1.0e-2, s_per_context_token: 1.0e-6, s_per_sequence: 1.0e-2}
"""
NUM_REQUESTS = 24


@pytest.fixture
def deployment(tmp_path):
    pools = [{"name": "prefill", "role": "prefill", "replicas": 2}, {"name": "decode", "role": "decode"}]
    spec = {"model": {"path": str(MODEL_PATH)}, "pools": pools, "slos": {"ttft_ms": 2000, "tpot_ms": 60}}
    document = {"apiVersion": "baton/v1", "kind": "Deployment", "metadata": {"name": "test"}, "spec": spec}
    (tmp_path / "deployment.yaml").write_text(yaml.safe_dump(document))
    (tmp_path / "profile.yaml").write_text(PROFILE)
    return load_deployment(tmp_path / "deployment.yaml")


async def test_instances_do_both_where_that_serves_more_and_none_is_missed_meanwhile(deployment, tmp_path):
    said = []
    async with LocalCluster(num_prefill=2) as cluster:
        eyes = LiveCluster(
            deployment=deployment,
            grpc_address=cluster.info.grpc_address,
            http_address=cluster.info.http_address,
            flips=lambda instance, role: flip(instance, role, cluster.info.grpc_address),
        )
        network = await asyncio.to_thread(eyes.topology)
        assert [node.num_gpus for node in network.nodes] == [3]
        question = question_of(deployment, network, [], Asked(latency=tmp_path / "profile.yaml"))
        config = WatchConfig(num_checks=1, is_applied=True, simulated_s=1.0, num_processes=0)
        watch = Watch(question, eyes, fixed_instances(deployment), config, said.append)
        await asyncio.to_thread(watch.check)
        await asyncio.gather(*(generate(cluster) for _ in range(NUM_REQUESTS)))
        totals = await asyncio.to_thread(eyes.totals)
        assert (totals.num_requests, totals.output_tokens) == (NUM_REQUESTS, 8 * NUM_REQUESTS)
        assert not said
        await asyncio.to_thread(watch.check)
        running = await asyncio.to_thread(eyes.running)
        assert {seat.name: seat.pool.role for seat in running} == dict.fromkeys(cluster.infos, "mixed")
        await generate(cluster)
    flips = [text.split(":")[0].strip() for text in said if "a flip" in text]
    assert flips == ["prefill-0", "decode-0", "prefill-1"]


async def generate(cluster):
    deltas = cluster.client.generate(tuple(range(3, 11)), max_tokens=8, ignore_eos=True)
    return [delta async for delta in deltas]
