"""Which placement group an instance has at any time; the groups themselves are not Ray's."""

import asyncio
from dataclasses import replace

import pytest

from cluster.handshake import draw_secret
from deploy.errors import MemberFailed
from deploy.ray_groups import PlacementGroups
from deploy.ray_nodes import RayNode
from deploy.target import instance_targets
from tests.unit.deploy.fake_cluster import make_deployment

pytestmark = pytest.mark.unit


class FakeGroup:
    def __init__(self, bundles, node_id, *, is_full):
        self.bundles, self.node_id, self.is_full = bundles, node_id, is_full

    async def ready(self):
        if self.is_full:
            await asyncio.Event().wait()


@pytest.fixture
def held(monkeypatch):
    """The groups that there are; `full` nodes give none."""
    groups, full = [], set()

    def make(bundles, *, bundle_label_selector):
        node_id = bundle_label_selector[0]["ray.io/node-id"]
        assert bundle_label_selector == [{"ray.io/node-id": node_id}] * len(bundles)
        groups.append(FakeGroup(bundles, node_id, is_full=node_id in full))
        return groups[-1]

    monkeypatch.setattr("deploy.ray_groups.placement_group", make)
    monkeypatch.setattr("deploy.ray_groups.remove_placement_group", groups.remove)
    monkeypatch.setattr("deploy.ray_groups._READY_TIMEOUT_S", 0.01)
    return groups, full


def node(name):
    return RayNode(node_id=f"id-{name}", name=name, address="10.0.0.1", free={})


def ids(held):
    return [group.node_id for group in held[0]]


def target(num_ranks=1):
    one = instance_targets(make_deployment(), draw_secret())[0]
    return replace(one, config=replace(one.config, engine=replace(one.config.engine, tensor_parallel_size=num_ranks)))


async def test_each_rank_has_a_bundle_with_its_share_on_the_same_node(held):
    groups, one = PlacementGroups(), target(num_ranks=2)
    await groups.reserve(one, node("a"))
    [group] = held[0]
    assert group.bundles == [{"CPU": one.num_cpus / 2}] * 2
    assert [it["scheduling_strategy"].placement_group_bundle_index for it in groups.options(one)] == [0, 1]


async def test_a_place_that_is_not_needed_after_all_is_given_back(held):
    groups, one = PlacementGroups(), target()
    await groups.reserve(one, node("a"))
    first = held[0][0]
    await groups.reserve(one, node("b"))
    assert ids(held) == ["id-a", "id-b"], "it runs in the first until its next life begins"
    groups.release(one, "b")
    assert held[0] == [first]
    await groups.reserve(one, node("a"))
    assert held[0] == [first]


async def test_who_dies_meanwhile_has_its_old_place_still(held):
    groups, one = PlacementGroups(), target()
    await groups.reserve(one, node("a"))
    await groups.reserve(one, node("b"))
    held[1].add("id-a")  # another group would not fit beside the first
    await groups.reserve(one, node("a"))
    assert ids(held) == ["id-a", "id-b"]
    groups.options(one)
    assert ids(held) == ["id-a"]
    groups.release(one, "b")
    groups.release(one, "a")
    assert ids(held) == ["id-a"], "its only place stays"


async def test_what_ray_does_not_give_changes_nothing(held):
    groups, one = PlacementGroups(), target()
    await groups.reserve(one, node("a"))
    held[1].add("id-b")
    with pytest.raises(MemberFailed, match="Ray has not given it a place on b"):
        await groups.reserve(one, node("b"))
    assert ids(held) == ["id-a"]
