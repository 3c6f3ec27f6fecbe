from collections import Counter
from itertools import product

import numpy as np
import pytest

from cluster.topology.synthetic import limited, racks
from cluster.topology.topology import Node, Topology
from deploy.planner.bound import LowerBound
from deploy.planner.placement import NoRoom
from deploy.planner.planner import Planner
from deploy.planner.room import Room
from deploy.planner.transfer_cost import TransferCost
from tests.unit.planner.factories import TRAFFIC, make_cluster, make_pool

pytestmark = pytest.mark.unit


def make_nodes(*num_gpus, **facts):
    return [Node(name=f"n{at}", num_gpus=number, **facts) for at, number in enumerate(num_gpus)]


def alike(nodes, beta=1e9):
    shape = (len(nodes), len(nodes))
    return Topology(nodes, np.zeros(shape), np.full(shape, beta))


def plan(pools, topology, rng):
    return Planner(pools, topology, TRAFFIC, rng).plan()


def every_assignment(pools, nodes):
    """Each instance on each node, those that fit by their GPUs and memory."""
    instances = [at for at, pool in enumerate(pools) for _ in range(pool.num_instances)]
    for places in product(range(len(nodes)), repeat=len(instances)):
        counts = np.zeros((len(pools), len(nodes)), int)
        for pool, node in zip(instances, places, strict=True):
            counts[pool, node] += 1
        if all(
            sum(n * pool.num_gpus for n, pool in zip(column, pools, strict=True)) <= node.num_gpus
            and sum(n * pool.memory_bytes for n, pool in zip(column, pools, strict=True)) <= (node.memory_bytes or 1e99)
            for column, node in zip(counts.T, nodes, strict=True)
        ):
            yield counts


def check_it_fits(placement, pools, nodes):
    needs = {pool.name: pool for pool in pools}
    placed = Counter(instance.instance.rsplit("-", 1)[0] for instance in placement.instances)
    assert placed == {pool.name: pool.num_instances for pool in pools}
    for node in nodes:
        here = [instance for instance in placement.instances if instance.node == node.name]
        given = [gpu for instance in here for gpu in instance.gpus]
        assert set(given) <= set(range(node.num_gpus))
        whole = [needs[instance.instance.rsplit("-", 1)[0]].num_gpus for instance in here]
        assert sum(whole) <= node.num_gpus
        if all(number >= 1 for number in whole):
            assert len(given) == len(set(given)) == sum(whole)


@pytest.mark.parametrize("num_prefill", [1, 2])
@pytest.mark.parametrize("local", [True, False])
def test_it_is_what_trying_everything_finds(rng, num_prefill, local):
    for _ in range(5):
        topology = make_cluster(4, rng, local=local)
        pools = [make_pool("prefill", num_prefill), make_pool("decode", 3)]
        found = plan(pools, topology, rng)
        cost = TransferCost(topology, pools, TRAFFIC)
        costs = [cost.mean_s(counts) for counts in every_assignment(pools, topology.nodes)]
        assert found.chosen.is_exact
        assert found.chosen.cost_s == pytest.approx(min(costs))
        assert found.worst.cost_s == pytest.approx(max(costs))
        assert min(costs) <= found.label_free.cost_s <= max(costs)
        check_it_fits(found.chosen, pools, topology.nodes)


def test_the_search_comes_near_the_best_and_the_bound_is_below(rng):
    over = []
    for _ in range(10):
        topology = make_cluster(5, rng)
        pools = [make_pool("prefill", 2), make_pool("decode", 4), make_pool("mixed", 1)]
        planner = Planner(pools, topology, TRAFFIC, rng)
        best_s = planner.plan().chosen.cost_s
        counts = planner._search(None)
        assert all(planner.room.fits(node, column) for node, column in enumerate(counts.T.tolist()))
        over.append(planner.cost.mean_s(counts) / best_s)
        assert LowerBound(planner.cost, planner.room).mean_s() <= best_s * (1 + 1e-9)
    assert max(over) < 1.05
    assert np.median(over) < 1.001


def test_a_slow_node_is_left_out_when_there_is_room_elsewhere(rng):
    topology = limited(racks(1, 4, inside=10e9, between=10e9, num_gpus=1), ["r0n2"], 1e9)
    found = plan([make_pool("prefill"), make_pool("decode", 2)], topology, rng)
    assert "r0n2" not in {instance.node for instance in found.chosen.instances}
    assert "r0n2" in {instance.node for instance in found.label_free.instances}
    assert found.chosen.cost_s < found.label_free.cost_s <= found.worst.cost_s


def test_prefill_is_beside_its_decode_when_nothing_has_to_travel_there(rng):
    topology = racks(2, 2, inside=10e9, between=1e9, num_gpus=2)
    found = plan([make_pool("prefill"), make_pool("decode")], topology, rng)
    assert len({instance.node for instance in found.chosen.instances}) == 1
    assert found.chosen.cost_s == 0.0 == found.chosen.gap


@pytest.mark.parametrize(("num_prefill", "num_decode"), [(32, 64), (16, 200)])
def test_64_nodes(rng, num_prefill, num_decode):
    topology = limited(racks(8, 8, inside=12e9, between=3e9), ["r1n1", "r2n2"], 0.5e9)
    pools = [make_pool("prefill", num_prefill), make_pool("decode", num_decode)]
    found = plan(pools, topology, rng)
    check_it_fits(found.chosen, pools, topology.nodes)
    assert found.chosen.lower_bound_s <= found.chosen.cost_s < 0.95 * found.label_free.cost_s
    assert found.label_free.cost_s <= found.worst.cost_s
    assert not found.chosen.is_exact


def test_1000_nodes(rng):
    topology = racks(20, 50, inside=12e9, between=5e9)
    pools = [make_pool("prefill", 64), make_pool("decode", 128, num_gpus=2)]
    found = plan(pools, topology, rng)
    check_it_fits(found.chosen, pools, topology.nodes)
    assert found.chosen.lower_bound_s <= found.chosen.cost_s < 0.7 * found.label_free.cost_s
    assert found.label_free.cost_s <= found.worst.cost_s


def test_the_same_input_gives_the_same_assignment():
    topology = racks(4, 8, inside=12e9, between=3e9, num_gpus=2)
    pools = [make_pool("prefill", 8), make_pool("decode", 20)]
    found = [plan(pools, topology, np.random.default_rng(5)).chosen.instances for _ in range(2)]
    assert found[0] == found[1]


def test_memory_keeps_instances_apart(rng):
    nodes = make_nodes(4, 4, 4, memory_bytes=10 << 30)
    pools = [make_pool("prefill", memory_bytes=6 << 30), make_pool("decode", 2, memory_bytes=6 << 30)]
    found = plan(pools, alike(nodes), rng)
    assert len({instance.node for instance in found.chosen.instances}) == 3


def test_pools_that_only_just_fit_find_their_places(rng):
    nodes = make_nodes(*([8] * 40))
    pools = [make_pool("prefill", 80), make_pool("decode", 30, num_gpus=8)]
    check_it_fits(plan(pools, alike(nodes), rng).chosen, pools, nodes)


def test_ranks_get_the_gpus_that_are_linked_best(rng):
    fast = [{0, 2}, {1, 3}]
    links = tuple(tuple(300e9 if {a, b} in fast else 20e9 for b in range(4)) for a in range(4))
    topology = alike([Node(name="n", num_gpus=4, gpu_links=links)])
    found = plan([make_pool("prefill", num_gpus=2), make_pool("decode", num_gpus=2)], topology, rng)
    assert sorted(map(set, (instance.gpus for instance in found.chosen.instances)), key=min) == fast


def test_instances_of_half_a_gpu_share_one(rng):
    topology = alike(make_nodes(2))
    found = plan([make_pool("prefill", num_gpus=1), make_pool("decode", 2, num_gpus=0.5)], topology, rng)
    assert sorted(instance.gpus for instance in found.chosen.instances) == [(0,), (1,), (1,)]


@pytest.mark.parametrize(
    ("pool", "nodes", "field", "message"),
    [
        (
            make_pool("prefill", num_gpus=8),
            make_nodes(2, 4),
            "gpus",
            "an instance needs 8 GPUs; the node with most, n1, has 4 GPUs (4 GPUs short)",
        ),
        (
            make_pool("prefill", num_gpus=0, memory_bytes=6 << 30),
            make_nodes(0, memory_bytes=4 << 30),
            "memory",
            "an instance needs 6 GiB; the node with most, n0, has 4 GiB (2 GiB short)",
        ),
        (
            make_pool("prefill", gpu_memory_bytes=90 << 30),
            make_nodes(1, gpu_memory_bytes=80 << 30),
            "gpu_memory",
            "an instance needs 90 GiB; the node with most, n0, has 80 GiB (10 GiB short)",
        ),
        (
            make_pool("prefill", num_gpus=0, num_cpus=3),
            make_nodes(0, num_cpus=2),
            "cpus",
            "an instance needs 3 CPUs; the node with most, n0, has 2 CPUs (1 CPU short)",
        ),
        (make_pool("prefill", 5), make_nodes(2, 2), "replicas", "is 5; the nodes have room for 4 (1 too many)"),
    ],
)
def test_a_pool_that_fits_nowhere_is_told_why(rng, pool, nodes, field, message):
    with pytest.raises(NoRoom) as refused:
        Planner([pool, make_pool("decode", num_gpus=0)], alike(nodes), TRAFFIC, rng)
    assert (refused.value.pool, refused.value.field, str(refused.value)) == ("prefill", field, message)


def test_pools_that_fit_one_by_one_but_not_together_are_told_so(rng):
    with pytest.raises(NoRoom, match=r"all pools together need 5 GPUs, the nodes have 4 GPUs \(1 GPU short\)"):
        plan([make_pool("prefill", 2), make_pool("decode", 3)], alike(make_nodes(2, 2)), rng)
    with pytest.raises(NoRoom, match=r"is 2; beside the other pools only 1 found room \(1 too many\)") as refused:
        plan([make_pool("prefill", 2, num_gpus=2), make_pool("decode", num_gpus=3)], alike(make_nodes(3, 3, 1)), rng)
    assert refused.value.pool == "prefill"


def test_a_link_that_the_topology_lacks_is_named(rng):
    topology = alike(make_nodes(1, 1))
    topology.beta_bytes_per_s[0, 1] = np.nan
    with pytest.raises(ValueError, match="says nothing of 1 links, such as n0 -> n1"):
        Planner([make_pool("prefill"), make_pool("decode")], topology, TRAFFIC, rng)


def test_how_many_fit_beside_another(rng):
    room = Room([make_pool("prefill", 9), make_pool("decode", 9, num_gpus=2)], make_nodes(1, 4, 8))
    assert room.most.tolist() == [[1, 4, 8], [0, 2, 4]]
    assert room.with_one(1, 0).tolist() == [0, 1, 3]
