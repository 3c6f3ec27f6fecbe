"""Where the controller has instances run, and what moves when links or nodes change."""

import asyncio

import numpy as np
import pytest

from cluster.topology.topology import Node, Topology
from deploy.errors import DeployError, MemberFailed
from deploy.probing.survey import Survey, Unreachable
from tests.unit.deploy.fake_cluster import FakeCluster, FakeTime, make_controller, make_deployment, settle
from tests.unit.spec.factories import make_checkpoint

pytestmark = pytest.mark.unit

FAST, SLOW = 1e9, 1e7


def make_nodes(names, **facts):
    return [Node(name=name, **{"num_cpus": 1.0, **facts}) for name in names]


def make_topology(names, slow="", nodes=None, sources=None):
    """Links from and to the slow nodes are slow; with `sources` only those are fast that leave from there."""
    is_slow = [
        [bool({one, other} & set(slow)) or (sources is not None and one not in sources) for other in names]
        for one in names
    ]
    beta = np.where(is_slow, SLOW, FAST)
    np.fill_diagonal(beta, np.nan)
    return Topology(nodes or make_nodes(names), np.full_like(beta, 1e-4), beta)


def make_cluster(names="abcd", slow="", unreachable=(), **facts):
    nodes = make_nodes(names, **facts)
    found = tuple(Unreachable(source=a, target=b, why="timed out") for a, b in unreachable)
    return FakeCluster((nodes, Survey(topology=make_topology(names, slow, nodes), unreachable=found)))


@pytest.fixture
def deployment(tmp_path):
    make_checkpoint(tmp_path / "model")

    def make(**spec):
        return make_deployment(**{"model": {"path": str(tmp_path / "model")}, **spec})

    return make


async def up(cluster, deployment, time=None):
    controller = make_controller(cluster, time, deployment)
    await controller.up()
    return controller


async def texts(controller, member="placement"):
    return [event.text for event in await controller.events(0) if event.member == member]


async def test_instances_go_where_kv_is_soonest_and_the_events_say_so(deployment):
    cluster = make_cluster(slow="b")
    controller = await up(cluster, deployment())
    assert set(cluster.places.values()) == {"a", "c", "d"}
    said = await texts(controller)
    assert said[0] == "probing links: round 1 of 1"
    assert (
        said[-1] == "KV of 2048 tokens (1.5 MiB) should take 1.67 ms from prefill to decode; 79.5 ms not knowing links"
    )
    assert (await texts(controller, "d-0"))[0] == f"placed on {cluster.places['d-0']}"
    assert f"on {cluster.places['d-0']}" in await texts(controller, "d-0")
    assert cluster.router_configs[0].topology is cluster.found.topology
    await controller.stop()


@pytest.mark.parametrize("nodes", ["a", "abcd"])
async def test_on_one_node_or_when_told_to_spread_ray_chooses(deployment, nodes):
    cluster = make_cluster(nodes)
    controller = await up(cluster, deployment(placement={"policy": "spread"} if len(nodes) > 1 else {}))
    assert cluster.places == {}
    assert await texts(controller) == []
    assert cluster.router_configs[0].topology is None
    await controller.stop()


async def test_a_pool_without_room_is_named_with_its_place_in_the_yaml(deployment):
    pools = [
        {"name": "p", "role": "prefill", "resources": {"cpus": 1.0}},
        {"name": "d", "role": "decode", "resources": {"cpus": 3.0}},
    ]
    cluster = make_cluster()
    with pytest.raises(MemberFailed) as failed:
        await up(cluster, deployment(pools=pools))
    assert str(failed.value) == (
        "spec.pools[1].resources.cpus: an instance needs 3 CPUs; "
        "the node with most, a, has 1 CPU (2 CPUs short) (pool d)"
    )
    assert cluster.lives == {}


@pytest.mark.parametrize("gpu_memory_bytes", [None, 80 << 30])
async def test_gpu_memory_that_ray_does_not_tell_of_is_not_checked_and_that_is_said(deployment, gpu_memory_bytes):
    pools = [{"name": name, "role": name, "resources": {"gpus": 1.0}} for name in ("prefill", "decode")]
    cluster = make_cluster(num_gpus=1, gpu_memory_bytes=gpu_memory_bytes)
    controller = await up(cluster, deployment(pools=pools))
    said = [text for text in await texts(controller) if text.startswith("GPU memory is not checked")]
    assert len(said) == (gpu_memory_bytes is None)
    await controller.stop()


async def test_what_cannot_be_probed_at_all_ends_it(deployment):
    cluster = make_cluster()
    cluster.found = DeployError("no node can be probed")
    with pytest.raises(MemberFailed, match="no node can be probed"):
        await up(cluster, deployment())


async def test_a_pair_without_a_way_is_named_and_kept_apart(deployment):
    cluster = make_cluster("abc", unreachable=[("a", "b"), ("b", "a")])
    controller = await up(cluster, deployment())
    assert cluster.places["p-0"] == "c"
    assert "a and b cannot reach each other: timed out" in await texts(controller)
    await controller.stop()


async def test_pools_that_could_not_reach_each_other_are_not_started(deployment):
    pools = [{"name": "p", "role": "prefill"}, {"name": "d", "role": "decode"}]
    cluster = make_cluster("ab", unreachable=[("a", "b"), ("b", "a")])
    with pytest.raises(MemberFailed, match=r"p-0 would be on ., and no decode instance within reach"):
        await up(cluster, deployment(pools=pools))


async def test_a_dead_instance_comes_back_on_its_node(deployment):
    cluster, time = make_cluster(), FakeTime()
    controller = await up(cluster, deployment(), time)
    before = dict(cluster.places)
    cluster["d-0"].death.set_result("killed")
    await settle()
    time.advance(0.5)
    await settle()
    assert len(cluster.lives["d-0"]) == 2
    assert cluster.places == before
    await controller.stop()


async def wait_for(condition):
    """Until it holds; threads take their time."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_whose_node_is_gone_comes_back_where_kv_is_soonest(deployment):
    cluster, time = make_cluster("abcde", slow="b"), FakeTime()
    controller = await up(cluster, deployment(), time)
    gone = cluster.places["d-0"]
    (free,) = {"a", "c", "d", "e"} - set(cluster.places.values())
    cluster.alive = [node for node in cluster.alive if node.name != gone]
    cluster["d-0"].death.set_result("its node is gone")
    await settle()
    time.advance(0.5)
    await wait_for(lambda: len(cluster.lives["d-0"]) == 2)
    assert cluster.places["d-0"] == free
    assert f"placed on {free}: {gone} is gone" in await texts(controller, "d-0")
    await controller.stop()


async def test_without_room_elsewhere_it_waits_for_its_node(deployment):
    cluster, time = make_cluster("abc"), FakeTime()
    controller = await up(cluster, deployment(), time)
    home, nodes = cluster.places["d-0"], cluster.alive
    cluster.alive = [node for node in nodes if node.name != home]
    cluster["d-0"].death.set_result("its node is gone")
    await settle()
    time.advance(0.5)
    await wait_for(lambda: time.is_awaited(1.0))
    (said,) = [text for text in await texts(controller, "d-0") if "no other has room" in text]
    assert said.startswith(f"its node {home} is gone, and no other has room for it; made again in 1.0 s")
    cluster.alive = nodes
    time.advance(1.0)
    await wait_for(lambda: len(cluster.lives["d-0"]) == 2)
    assert cluster.places["d-0"] == home
    await controller.stop()


async def test_nodes_that_have_all_come_since_are_as_good_as_each_other(deployment):
    cluster, time = make_cluster(), FakeTime()
    controller = await up(cluster, deployment(), time)
    cluster.alive = make_nodes("xy")
    cluster["d-0"].death.set_result("its node is gone")
    await settle()
    time.advance(0.5)
    await wait_for(lambda: len(cluster.lives["d-0"]) == 2)
    assert cluster.places["d-0"] in "xy"
    await controller.stop()


async def test_two_whose_node_is_gone_do_not_take_the_same_place(deployment):
    pools = [{"name": "p", "role": "prefill"}, {"name": "d", "role": "decode", "replicas": 2}]
    cluster, time = make_cluster("abc", num_cpus=2.0), FakeTime()
    controller = await up(cluster, deployment(pools=pools), time)
    homes = [controller._placing.seats[name].node for name in ("d-0", "d-1")]
    cluster.alive = [node for node in make_nodes("abcdef") if node.name not in homes]
    for name in ("d-0", "d-1"):
        cluster[name].death.set_result("its node is gone")
    await settle()
    time.advance(0.5)
    await wait_for(lambda: len(cluster.lives["d-0"]) == len(cluster.lives["d-1"]) == 2)
    assert cluster.places["d-0"] != cluster.places["d-1"]
    await controller.stop()


async def test_whose_node_has_no_room_any_more_comes_back_on_another(deployment):
    cluster, time = make_cluster("abcd", num_cpus=4.0), FakeTime()
    controller = await up(cluster, deployment(), time)
    home = cluster.places["d-0"]
    cluster.full = {home}
    cluster["d-0"].death.set_result("killed")
    await settle()
    time.advance(0.5)
    await wait_for(lambda: len(cluster.lives["d-0"]) == 2)
    assert cluster.places["d-0"] == controller._placing.seats["d-0"].node != home
    assert f"placed on {cluster.places['d-0']}: {home} has no room" in (await texts(controller, "d-0"))[-3]
    await controller.stop()


async def test_who_finds_no_room_on_the_other_node_either_keeps_its_seat(deployment):
    cluster, time = make_cluster("abcd", num_cpus=4.0), FakeTime()
    controller = await up(cluster, deployment(), time)
    home = cluster.places["d-0"]
    cluster.full = set("abcd")
    cluster["d-0"].death.set_result("killed")
    await settle()
    time.advance(0.5)
    await wait_for(lambda: controller._observed["d-0"].num_deaths == 2)
    assert controller._placing.seats["d-0"].node == home
    await controller.stop()


async def test_a_node_where_no_prober_started_is_the_last_that_is_given_an_instance(deployment):
    cluster, time = make_cluster("abcd", unreachable=[("d", "d")]), FakeTime()
    cluster.found = Survey(
        topology=make_topology("abc", nodes=cluster.alive[:3]), unreachable=cluster.found.unreachable
    )
    controller = await up(cluster, deployment(), time)
    assert "d cannot be probed: timed out" in await texts(controller)
    assert set(cluster.places.values()) == {"a", "b", "c"}
    assert [node.name for node in await controller._placing.nodes()] == ["a", "b", "c"]
    cluster.alive = [node for node in cluster.alive if node.name != cluster.places["d-0"]]
    cluster["d-0"].death.set_result("its node is gone")
    await settle()
    time.advance(0.5)
    await wait_for(lambda: len(cluster.lives["d-0"]) == 2)
    assert cluster.places["d-0"] == "d"
    assert "d" in [node.name for node in await controller._placing.nodes()]
    await controller.stop()
