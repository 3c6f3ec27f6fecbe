import numpy as np
import pytest

from deploy.planner.refill import find_node
from deploy.planner.room import Room
from deploy.planner.transfer_cost import TransferCost
from tests.unit.planner.factories import TRAFFIC, make_pool
from tests.unit.planner.test_steps import make_network, seats

pytestmark = pytest.mark.unit

POOLS = [make_pool("prefill"), make_pool("decode", 3)]


def where(network, here, pool="decode"):
    return find_node(TransferCost(network, POOLS, TRAFFIC), Room(POOLS, network.nodes), here, pool)


def test_it_goes_where_kv_is_soonest():
    assert where(make_network("b", "c"), seats(prefill_0="a")) == "d"


def test_a_node_without_room_is_no_choice():
    assert where(make_network("b"), seats(prefill_0="a", decode_0="c", decode_1="d")) == "b"
    assert where(make_network(num_nodes=3), seats(prefill_0="a", decode_0="b", decode_1="c")) is None


def test_where_nobody_is_left_any_node_will_do():
    assert where(make_network(num_nodes=2), [], "prefill") in ("a", "b")


def test_without_gpus_room_is_counted_all_the_same():
    assert np.array_equal(Room(POOLS, make_network().nodes).counts(seats(decode_0="b")), [[0, 0, 0, 0], [0, 1, 0, 0]])
