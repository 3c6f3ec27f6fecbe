import asyncio
from dataclasses import replace

import pytest

from cluster.handshake import draw_secret
from cluster.role import InstanceRole
from deploy.errors import MemberFailed
from deploy.events import EventKind
from deploy.target import instance_targets, with_weights_peers
from router.config import RouterConfig
from tests.unit.deploy.fake_cluster import FakeCluster, FakeTime, make_controller, make_deployment, make_info, settle
from tests.unit.deploy.test_placing import deployment, make_cluster

pytestmark = pytest.mark.unit

__all__ = ["deployment"]


async def test_up_starts_all_and_tells_the_router_of_all():
    cluster = FakeCluster()
    controller = make_controller(cluster)
    await controller.up()
    assert controller.addresses().grpc_address == "g:1"
    assert set(cluster.lives) == {"router", "p-0", "d-0", "d-1"}
    assert cluster["router"].instances[-1] == [("d-0", 0), ("d-1", 0), ("p-0", 0)]
    events = await controller.events(0)
    assert events[-1].kind is EventKind.READY
    assert {event.member for event in events if event.kind is EventKind.RUNNING} == set(cluster.lives)
    await controller.stop()


@pytest.mark.parametrize("failing", ["p-0", "d-1", "router"])
async def test_what_cannot_start_brings_everything_down(failing):
    cluster = FakeCluster(**{failing.replace("-", "_"): "no such file"})
    controller = make_controller(cluster)
    with pytest.raises(MemberFailed, match=f"{failing}: no such file"):
        await controller.up()
    await settle()
    assert all(member.killed for member in cluster.all_lives())
    assert (await controller.events(0))[-1].kind is EventKind.FAILED


async def test_a_dead_instance_is_taken_from_the_router_and_its_next_life_given_to_it():
    cluster, time = FakeCluster(), FakeTime()
    controller = make_controller(cluster, time)
    await controller.up()
    cluster["d-0"].death.set_result("killed")
    await settle()
    assert cluster["router"].instances[-1] == [("d-1", 0), ("p-0", 0)]
    assert len(cluster.lives["d-0"]) == 1
    assert cluster["d-0"].killed
    time.advance(0.5)
    await settle()
    assert cluster["router"].instances[-1] == [("d-0", 1), ("d-1", 0), ("p-0", 0)]
    assert [event.text for event in await controller.events(0) if event.kind is EventKind.GONE] == [
        "killed; made again in 0.5 s"
    ]
    await controller.stop()


async def test_a_life_that_cannot_start_again_is_tried_again():
    cluster, time = FakeCluster(), FakeTime()
    controller = make_controller(cluster, time)
    await controller.up()
    cluster.errors["d_0"] = "out of memory"
    cluster["d-0"].death.set_result("killed")
    await settle()
    time.advance(0.5)
    await settle()
    assert len(cluster.lives["d-0"]) == 2
    time.advance(1.0)
    await settle()
    assert cluster["router"].instances[-1] == [("d-0", 2), ("d-1", 0), ("p-0", 0)]
    await controller.stop()


async def test_a_dead_router_is_made_again_where_it_was_with_a_greater_term_and_told_of_all():
    cluster, time = FakeCluster(), FakeTime()
    controller = make_controller(cluster, time)
    await controller.up()
    cluster["router"].death.set_result("killed")
    await settle()
    time.advance(0.5)
    await settle()
    first, second = cluster.lives["router"]
    assert second.info.term > first.info.term
    ports = [(config.grpc_port, config.http_port) for config in cluster.router_configs]
    assert ports == [(50051, 8000), (1, 2)], "those that the first life listened on"
    assert second.instances[-1] == [("d-0", 0), ("d-1", 0), ("p-0", 0)]
    await controller.stop()


async def test_stop_ends_all_and_makes_nothing_again():
    cluster, time = FakeCluster(), FakeTime()
    controller = make_controller(cluster, time)
    await controller.up()
    await controller.stop()
    time.advance(100.0)
    await settle()
    assert all(member.stopped and member.killed for member in cluster.all_lives())
    assert all(member.was_stopped_before_killed for member in cluster.all_lives()), "clients are told, not cut off"
    assert len(cluster.all_lives()) == 4
    assert (await controller.events(0))[-1].kind is EventKind.STOPPED


@pytest.mark.parametrize("failing", ["survey", "create_instance"])
async def test_what_nobody_foresaw_ends_the_start_and_is_told(failing, deployment):
    cluster = make_cluster()

    def fail(*_):
        raise OSError("No such device\n(and more)")

    setattr(cluster, failing, fail)
    controller = make_controller(cluster, None, deployment())
    with pytest.raises(MemberFailed, match=r"OSError: No such device$"):
        await controller.up()
    assert all(member.killed for member in cluster.all_lives())
    last = (await controller.events(0))[-1]
    assert last.kind is EventKind.FAILED
    assert last.text.endswith("OSError: No such device")


async def test_stop_while_it_probes_is_the_end(deployment):
    cluster, gate = make_cluster(), asyncio.Event()
    survey = cluster.survey

    async def held(*arguments):
        await gate.wait()
        return await survey(*arguments)

    cluster.survey = held
    controller = make_controller(cluster, None, deployment())
    starting = asyncio.ensure_future(controller.up())
    await settle()
    await controller.stop()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert cluster.all_lives() == []
    assert [event.kind for event in await controller.events(0)] == [EventKind.STOPPED]


async def test_events_are_waited_for():
    controller = make_controller(FakeCluster())
    waiting = asyncio.ensure_future(controller.events(0))
    await settle()
    assert not waiting.done()
    await controller.up()
    assert (await waiting)[0].kind is EventKind.STARTING
    await controller.stop()


def test_targets_carry_the_options_of_their_pool():
    pools = [
        {
            "name": "all",
            "role": "mixed",
            "replicas": 2,
            "resources": {"cpus": 2.0, "memory": "1GiB"},
            "engine": {"max_num_seqs": 7},
        }
    ]
    deployment = make_deployment(pools=pools, model={"path": "/m", "dtype": "bfloat16"}, links={"transport": "tcp"})
    first, second = instance_targets(deployment, draw_secret())
    assert (first.name, second.name) == ("all-0", "all-1")
    assert (first.num_cpus, first.memory_bytes) == (2.0, 1 << 30)
    assert first.config.role is InstanceRole.MIXED
    assert (first.config.engine.max_num_seqs, first.config.engine.num_threads) == (7, 2)
    assert (first.config.engine.dtype, first.config.links.transport) == ("bfloat16", "tcp")


def test_the_router_is_told_the_options_of_the_yaml():
    from deploy.target import router_config

    deployment = make_deployment(
        router={"max_queued_requests": 3, "grace_s": 1.5, "retention_s": 2.5},
        fronts={"grpc": {"port": 1}, "http": {"host": "0.0.0.0", "port": 2}},
    )
    config: RouterConfig = router_config(deployment, draw_secret(), term=9)
    instance = instance_targets(deployment, draw_secret())[0].config
    assert (config.grace_s, config.retention_s) == (instance.grace_s, instance.retention_s) == (1.5, 2.5)
    assert (config.deployment, config.term, config.max_queued_requests) == ("test", 9, 3)
    assert (config.grpc_port, config.http_host, config.http_port) == (1, "0.0.0.0", 2)


@pytest.mark.parametrize(("weights_from", "asked"), [("peer", [("d-1", 0), ("p-0", 0)]), ("disk", [])])
async def test_a_next_life_is_told_who_runs_and_could_give_it_weights(weights_from, asked):
    cluster, time = FakeCluster(), FakeTime()
    model = {"path": "/model", "weights_from": weights_from}
    controller = make_controller(cluster, time, make_deployment(model=model))
    await controller.up()
    cluster["d-0"].death.set_result("killed")
    await settle()
    time.advance(0.5)
    await settle()
    assert [(peer.name, peer.incarnation) for peer in cluster.configs["d-0"].weights_peers] == asked
    await controller.stop()


def test_only_instances_of_as_many_ranks_are_asked_for_weights():
    target = instance_targets(make_deployment(), draw_secret())[0]
    infos = [replace(make_info(target.config, 0), name=name) for name in ("a", "b")]
    infos[1] = replace(infos[1], link_address="a:2,a:3")
    assert [peer.name for peer in with_weights_peers(target, infos).config.weights_peers] == ["a"]
