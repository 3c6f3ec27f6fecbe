import numpy as np
import pytest

from cluster.topology.topology import Node, Topology
from deploy.planner.placement import Seat
from deploy.planner.planner import Planner
from deploy.planner.steps import Flip, Move, find_route
from tests.unit.planner.factories import TRAFFIC, make_pool

pytestmark = pytest.mark.unit

FAST, SLOW = 10e9, 1e8


def make_network(*slow, num_nodes=4, num_gpus=1):
    """Nodes a, b, c, ...; the links to and from the slow ones are slow."""
    names = "abcdefgh"[:num_nodes]
    beta = np.array([[SLOW if {one, other} & set(slow) else FAST for other in names] for one in names])
    np.fill_diagonal(beta, np.nan)
    return Topology([Node(name=name, num_gpus=num_gpus) for name in names], np.zeros_like(beta), beta)


def seats(**nodes):
    """prefill_0="a" is an instance of pool prefill on a."""
    return [
        Seat(instance=name.replace("_", "-"), pool=name.rsplit("_", 1)[0], node=node) for name, node in nodes.items()
    ]


def route(pools, network, here, alike=()):
    planner = Planner(pools, network, TRAFFIC, np.random.default_rng(0))
    best_s = planner.plan().chosen.cost_s
    return find_route(planner.cost, planner.room, here, best_s, alike), best_s


def test_one_that_is_on_a_slow_node_moves_to_a_free_one():
    pools = [make_pool("prefill"), make_pool("decode", 2)]
    found, best_s = route(pools, make_network("b"), seats(prefill_0="a", decode_0="b", decode_1="c"))
    assert found.steps == (Move(instance="decode-0", source="b", target="d"),)
    assert found.mean_s == pytest.approx(best_s)
    assert {seat.instance: seat.node for seat in found.seats}["decode-0"] == "d"


def test_who_is_in_the_best_place_stays():
    pools = [make_pool("prefill"), make_pool("decode", 2)]
    found, _ = route(pools, make_network("d"), seats(prefill_0="a", decode_0="b", decode_1="c"))
    assert found.steps == ()


def test_the_last_that_can_prefill_does_not_move():
    pools = [make_pool("prefill"), make_pool("decode", 2)]
    here = seats(prefill_0="b", decode_0="a", decode_1="c")
    found, best_s = route(pools, make_network("b"), here)
    assert found.steps == ()
    assert found.bound == ("prefill-0",)
    assert found.mean_s > 2 * best_s


def test_with_others_that_can_take_its_work_a_prefill_instance_moves():
    pools = [make_pool("prefill", 2), make_pool("decode")]
    found, _ = route(pools, make_network("b"), seats(prefill_0="b", prefill_1="a", decode_0="c"))
    assert found.steps == (Move(instance="prefill-0", source="b", target="d"),)


def one_way_network():
    """KV flows fast out of a, and slowly from anywhere else: the prefill instance belongs there."""
    network = make_network(num_nodes=3)
    beta = np.where(np.isnan(network.beta_bytes_per_s), np.nan, SLOW)
    beta[0, 1:] = FAST
    return Topology(network.nodes, network.alpha_s, beta)


def test_two_of_opposite_roles_exchange_them_where_their_pools_are_alike():
    pools = [make_pool("prefill"), make_pool("decode", 2)]
    here = seats(prefill_0="b", decode_0="a", decode_1="c")
    found, best_s = route(pools, one_way_network(), here, [frozenset({"prefill", "decode"})])
    assert found.steps == (Flip(first="decode-0", second="prefill-0"),), (
        "a decode instance can be spared, the prefill one not"
    )
    assert {seat.instance: (seat.pool, seat.node) for seat in found.seats} == {
        "prefill-0": ("decode", "b"),
        "decode-0": ("prefill", "a"),
        "decode-1": ("decode", "c"),
    }
    assert found.mean_s == pytest.approx(best_s)


@pytest.mark.parametrize("num_decode", [1, 2])
def test_where_neither_can_be_spared_or_they_are_not_alike_nothing_happens(num_decode):
    pools = [make_pool("prefill"), make_pool("decode", num_decode)]
    here = seats(prefill_0="b", decode_0="a", decode_1="c")[: 1 + num_decode]
    alike = [frozenset({"prefill", "decode"})] if num_decode == 1 else []
    found, _ = route(pools, one_way_network(), here, alike)
    assert found.steps == ()
    assert "prefill-0" in found.bound


def test_a_step_needs_room_when_its_turn_comes():
    pools = [make_pool("prefill"), make_pool("decode", 3)]
    here = seats(prefill_0="a", decode_0="b", decode_1="c", decode_2="d")
    found, _ = route(pools, make_network("b"), here)
    assert found.steps == (), "every other node is full"


def test_steps_follow_each_other_until_the_best_is_nearly_reached():
    pools = [make_pool("prefill"), make_pool("decode", 3)]
    here = seats(prefill_0="a", decode_0="b", decode_1="c", decode_2="d")
    found, best_s = route(pools, make_network("b", "c", num_nodes=8), here)
    assert {step.source for step in found.steps} == {"b", "c"}
    assert found.mean_s == pytest.approx(best_s)


def test_a_node_that_is_not_there_is_named():
    pools = [make_pool("prefill"), make_pool("decode")]
    with pytest.raises(ValueError, match="decode-0 is one of decode on z, which is not there"):
        route(pools, make_network(), seats(prefill_0="a", decode_0="z"))


def test_any_route_is_feasible_all_along_and_never_worse(rng):
    for _ in range(20):
        beta = rng.uniform(1e8, 1e10, (6, 6))
        nodes = [Node(name=name, num_gpus=2) for name in "abcdef"]
        network = Topology(nodes, np.zeros_like(beta), beta)
        pools = [make_pool("prefill", 2), make_pool("decode", 3), make_pool("mixed", 1)]
        planner = Planner(pools, network, TRAFFIC, rng)
        here = []
        for pool in pools:
            for at in range(pool.num_instances):
                free = [n.name for n in nodes if sum(seat.node == n.name for seat in here) < 2]
                here.append(Seat(instance=f"{pool.name}-{at}", pool=pool.name, node=str(rng.choice(free))))
        before_s = planner.cost.mean_s(planner.room.counts(here))
        best_s = planner.plan().chosen.cost_s
        found = find_route(planner.cost, planner.room, here, best_s, [frozenset({"prefill", "decode", "mixed"})])
        counts = planner.room.counts(found.seats)
        assert all(planner.room.fits(at, counts[:, at].tolist()) for at in range(6))
        assert best_s * (1 - 1e-9) <= found.mean_s <= before_s
        assert found.mean_s == pytest.approx(planner.cost.mean_s(counts))
        assert sorted(seat.instance for seat in found.seats) == sorted(seat.instance for seat in here)
