"""By hand: links of 100 bytes/s and 1 s of latency, a KV token of 10 bytes."""

import numpy as np
import pytest

from cluster.messages import Holder
from cluster.topology.synthetic import racks
from cluster.topology.topology import Node
from router.links.forecast import LiveForecast, Site
from tests.unit.topology.factories import make_topology

pytestmark = pytest.mark.unit

INF = float("inf")
A, A2, B, C = (Holder(name, 1) for name in ("a", "a2", "b", "c"))
SITES = {holder: Site(node=holder.instance[0], token_bytes=10.0) for holder in (A, A2, B, C)}


def make(links=None, broken=(), nodes=("a", "b", "c"), sites=SITES):
    forecast = LiveForecast()
    forecast.learned(make_topology(*nodes, links=links, alpha_s=1.0), broken, sites)
    return forecast


def test_within_an_instance_nothing_travels_and_between_two_the_link_says():
    forecast = make({("a", "c"): 20.0})
    assert forecast.transfer_s(A, A, 100) == 0.0
    assert forecast.transfer_s(A, B, 100) == 11.0
    assert forecast.transfer_s(A, C, 100) == 51.0


def test_within_a_node_its_own_link_counts_and_nothing_has_to_travel_where_it_is_not_known():
    assert make().transfer_s(A, A2, 100) == pytest.approx(0.0)
    assert make({("a", "a"): 1000.0}).transfer_s(A, A2, 100) == 2.0


def test_of_what_nothing_is_known_the_median_is_predicted():
    forecast = make({("a", "b"): float("nan"), ("a", "c"): 50.0, ("c", "a"): 50.0, ("b", "a"): 50.0})
    assert forecast.transfer_s(A, B, 100) == 21.0
    nan = float("nan")
    unknown = make(dict.fromkeys((("a", "b"), ("b", "a")), nan), nodes=("a", "b"), sites={A: SITES[A], B: SITES[B]})
    assert unknown.transfer_s(A, B, 100) == pytest.approx(0.0)


def test_where_nothing_gets_through_it_is_infinite():
    forecast = make(broken=[("a", "b")])
    assert forecast.transfer_s(A, B, 1) == INF
    assert forecast.transfer_s(B, A, 1) == 2 * 0.5 + 0.1
    assert forecast.transfer_s(A, Holder("nobody", 1), 1) == INF
    shut = make(sites={**SITES, A: Site(node="a", token_bytes=10.0, unreachable={C})})
    assert shut.transfer_s(A, C, 1) == INF
    assert shut.transfer_s(C, A, 1) == pytest.approx(1.1)
    wanted = np.ones((2, 3))
    both = [[0.0, 1.1, INF], [1.1, 1.1, 0.0]]
    assert shut.transfers_s([A, C], [A, B, C], wanted).tolist() == [pytest.approx(row) for row in both]


def test_what_is_promised_to_a_link_takes_of_it_until_it_is_there():
    forecast = make()
    forecast.promised("r1", A, B, 50)  # 500 bytes
    assert forecast.transfer_s(A, B, 100) == 16.0
    assert forecast.transfer_s(A, B, 20) == 5.0
    assert forecast.transfer_s(A, C, 100) == 11.0
    forecast.promised("r2", A, B, 1000)
    assert forecast.transfer_s(A, B, 100) == 26.0
    forecast.settled("r1")
    assert forecast.transfer_s(A, B, 100) == 21.0
    forecast.settled("r2")
    forecast.settled("r2")
    assert forecast.transfer_s(A, B, 100) == 11.0


def test_of_the_prompts_that_wait_for_each_other_at_one_instance_only_the_first_is_under_way():
    forecast = make()
    for number in range(5):
        forecast.promised(f"r{number}", A, B, 50, is_queued=True)
    assert forecast.transfer_s(A, B, 100) == 16.0
    forecast.computed("r0")  # its last blocks leave, those of r1 come
    assert forecast.transfer_s(A, B, 100) == 21.0
    forecast.settled("r0")
    forecast.computed("r0")
    assert forecast.transfer_s(A, B, 100) == 16.0
    forecast.promised("moved", A, B, 50)
    forecast.promised("beside", A2, B, 50, is_queued=True)
    assert forecast.transfer_s(A, B, 100) == 26.0
    assert len(forecast.flows) == 6


def test_two_flows_out_of_a_node_share_its_egress():
    nodes = [Node(name="a", egress_bytes_per_s=100.0), "b", "c"]
    forecast = make(nodes=nodes)
    forecast.promised("r1", A, B, 50)
    assert forecast.transfer_s(A, C, 100) == 16.0
    assert forecast.transfer_s(B, C, 100) == 11.0


def test_a_promise_outlives_new_beliefs_and_nodes_that_go():
    forecast = make()
    forecast.promised("r1", A, B, 50)
    forecast.learned(make_topology("a", "b", "c", alpha_s=1.0, beta=50.0), [], SITES)
    assert forecast.transfer_s(A, B, 100) == 1.0 + 1500 / 50
    forecast.learned(make_topology("a", "c", alpha_s=1.0), [], {A: SITES[A], C: SITES[C]})
    assert forecast.transfer_s(A, C, 100) == 11.0
    assert forecast.transfer_s(A, B, 100) == INF


def test_all_pairs_at_once_as_one_by_one():
    forecast = make({("a", "c"): 20.0, ("a", "a"): 500.0}, broken=[("b", "c")])
    forecast.promised("r1", A, B, 50)
    holders = [A, A2, B, C, Holder("nobody", 1)]
    tokens = np.arange(25.0).reshape(5, 5) * 10
    at_once = forecast.transfers_s(holders, holders, tokens)
    for row, source in enumerate(holders):
        for column, target in enumerate(holders):
            one = forecast.transfer_s(source, target, int(tokens[row, column]))
            assert at_once[row, column] == pytest.approx(one), (source, target)


def test_before_there_is_anything_there_is_nothing_to_say():
    forecast = LiveForecast()
    assert forecast.transfer_s(A, A, 1) == 0.0
    assert forecast.transfer_s(A, B, 1) == INF
    assert forecast.transfers_s([A], [B], np.ones((1, 1))).tolist() == [[INF]]


def test_64_by_64_instances_are_looked_at_in_one_go_and_one_pair_alone(monkeypatch):
    topology = racks(8, 16, inside=1e9, between=1e8)
    holders = [Holder(node.name, 1) for node in topology.nodes]
    forecast = LiveForecast()
    forecast.learned(topology, [], {holder: Site(node=holder.instance, token_bytes=1e4) for holder in holders})
    for number in range(100):
        forecast.promised(f"r{number}", holders[number % 64], holders[64 + number % 63], 1000)
    looked_at = []
    predict = type(topology).predict_among

    def predict_among(self, sources, targets, *given):
        looked_at.append((len(sources), len(targets)))
        return predict(self, sources, targets, *given)

    monkeypatch.setattr(type(topology), "predict_among", predict_among)
    at_once = forecast.transfers_s(holders[:64], holders[64:], np.full((64, 64), 2048.0))
    one_by_one = [[forecast.transfer_s(holders[at], target, 2048) for target in holders[64:]] for at in (0, 63)]
    assert np.allclose(at_once[[0, 63]], one_by_one)
    assert looked_at == [(64, 64)] + [(1, 1)] * 128
