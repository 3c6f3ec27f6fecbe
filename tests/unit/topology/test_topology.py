import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.topology.flights import MAX_EXACT, Flights
from cluster.topology.sharing import max_min_rates
from cluster.topology.topology import Flow, Node, UnknownNode
from tests.unit.topology.factories import make_topology

pytestmark = pytest.mark.unit


def flow(source, target, num_bytes=None):
    return Flow(source=source, target=target, num_bytes=num_bytes)


def test_a_transfer_alone_takes_alpha_and_bytes_over_beta():
    topology = make_topology("a", "b", alpha_s=0.5, beta=100.0)
    assert topology.predict("a", "b", 1000) == pytest.approx(10.5)
    assert topology.predict("a", "b", 0) == 0.5


def test_two_flows_out_of_a_node_are_not_promised_twice_its_uplink():
    topology = make_topology(Node(name="a", egress_bytes_per_s=100.0), "b", "c")
    assert topology.rates([flow("a", "b"), flow("a", "c")]) == [50.0, 50.0]
    assert topology.predict("a", "b", 1000, [flow("a", "c")]) == pytest.approx(20.0)
    assert topology.predict("a", "b", 1000, [flow("c", "b")]) == pytest.approx(10.0)


def test_two_flows_into_a_node_share_its_downlink():
    topology = make_topology("a", "b", Node(name="c", ingress_bytes_per_s=100.0))
    assert topology.predict("a", "c", 1000, [flow("b", "c")]) == pytest.approx(20.0)


def test_two_flows_over_one_link_share_it():
    topology = make_topology("a", "b")
    assert topology.predict("a", "b", 1000, [flow("a", "b")]) == pytest.approx(20.0)


def test_what_ends_first_leaves_its_share_to_the_others():
    topology = make_topology("a", "b", beta=100.0)
    # 500 bytes each at 50/s, then 500 more at 100/s.
    assert topology.predict("a", "b", 1000, [flow("a", "b", 500)]) == pytest.approx(15.0)


def test_what_a_slow_link_cannot_use_goes_to_the_other_flow():
    topology = make_topology(Node(name="a", egress_bytes_per_s=100.0), "b", "c", links={("a", "b"): 10.0})
    assert topology.rates([flow("a", "b"), flow("a", "c")]) == [10.0, 90.0]


def test_within_a_node_nothing_of_its_network_is_used():
    topology = make_topology(Node(name="a", egress_bytes_per_s=10.0), "b", links={("a", "a"): 1000.0})
    assert topology.predict("a", "a", 1000, [flow("a", "b")]) == pytest.approx(1.0)
    assert topology.predict("b", "b", 1000) == 0.0


def test_a_pair_that_was_not_measured_is_promised_nothing():
    topology = make_topology("a", "b", links={("a", "b"): float("nan")})
    assert topology.link("a", "b") is None
    assert topology.predict("a", "b", 1000) == float("inf")
    assert topology.missing() == [("a", "b")]


@pytest.mark.parametrize(
    "in_flight",
    [
        [],
        [flow("a", "b")],
        [flow("a", "c", 300), flow("a", "c", 5000)],
        [flow("b", "c"), flow("c", "b", 400)],
        [flow("a", "a")],
    ],
)
def test_all_pairs_at_once_as_one_by_one(in_flight):
    nodes = [Node(name=name, egress_bytes_per_s=100.0, ingress_bytes_per_s=100.0) for name in "abc"]
    topology = make_topology(*nodes, links={("a", "a"): 500.0}, alpha_s=0.5, beta=100.0)
    predicted = topology.predict_all(1000.0, in_flight)
    for row, source in enumerate("abc"):
        for column, target in enumerate("abc"):
            assert predicted[row, column] == pytest.approx(topology.predict(source, target, 1000, in_flight))


def test_all_pairs_with_bytes_of_their_own():
    topology = make_topology("a", "b", links={("a", "b"): float("nan")})
    predicted = topology.predict_all(np.array([[0.0, 10.0], [200.0, 0.0]]))
    assert predicted.tolist() == [[0.0, np.inf], [2.0, 0.0]]


def test_among_some_nodes_each_transfer_has_bytes_of_its_own():
    nodes = [Node(name=name, egress_bytes_per_s=100.0, ingress_bytes_per_s=100.0) for name in "abc"]
    topology = make_topology(*nodes, alpha_s=0.5, beta=100.0)
    flows = [flow("a", "c", 300), flow("a", "b"), flow("b", "c", 50)]
    sources, targets, num_bytes = np.array([0, 1, 0]), np.array([2, 1]), np.array([[10, 20], [30, 40], [2000, 0]])
    predicted = topology.predict_among(sources, targets, num_bytes, topology.in_flight(flows))
    for row, source in enumerate(sources):
        for column, target in enumerate(targets):
            alone = topology.predict_all(float(num_bytes[row, column]), flows)
            assert predicted[row, column] == alone[source, target]


def test_an_unknown_node_is_named():
    with pytest.raises(UnknownNode, match="no node 'z'"):
        make_topology("a", "b").predict("a", "z", 1)


@given(
    flows=st.lists(st.sets(st.integers(0, 5), min_size=1), max_size=8),
    capacities=st.lists(st.floats(1.0, 1e3), min_size=6, max_size=6),
)
def test_max_min_rates_fit_and_nobody_can_have_more_without_taking_from_one_who_has_less(flows, capacities):
    rates = max_min_rates(flows, dict(enumerate(capacities)))
    used = [sum(rate for rate, path in zip(rates, flows, strict=True) if at in path) for at in range(6)]
    assert all(total <= capacity * (1 + 1e-9) for total, capacity in zip(used, capacities, strict=True))
    for rate, path in zip(rates, flows, strict=True):
        assert any(
            used[at] >= capacities[at] * (1 - 1e-9)
            and rate >= max(r for r, p in zip(rates, flows, strict=True) if at in p) * (1 - 1e-9)
            for at in path
        )


def test_a_share_is_what_a_transfer_had_on_the_average_while_others_came_and_went():
    flights = Flights(make_topology(Node(name="a", egress_bytes_per_s=100.0), "b", "c"))
    flights.begin("first", "a", "b", 0.0)
    flights.begin("second", "a", "c", 10.0)
    assert flights.end("second", 20.0) == pytest.approx(0.5)
    assert flights.end("first", 30.0) == pytest.approx((10 + 5 + 10) / 30)
    flights.begin("third", "a", "b", 40.0)
    assert flights.end("third", 50.0) == 1.0


@given(st.lists(st.tuples(st.floats(0.0, 10.0), st.floats(0.1, 10.0), st.permutations("abcd")), max_size=12))
def test_shares_are_those_of_all_rates_worked_out_anew_at_every_change(transfers):
    nodes = [Node(name=name, egress_bytes_per_s=100.0, ingress_bytes_per_s=120.0) for name in "abc"]
    topology = make_topology(*nodes, "d", links={("a", "b"): 30.0, ("c", "d"): float("nan")}, beta=80.0)
    events = sorted(
        (at_s, begins, key)
        for key, (begun_s, took_s, _) in enumerate(transfers)
        for at_s, begins in ((begun_s, True), (begun_s + took_s, False))
    )
    flights, moved, before_s = Flights(topology), {}, 0.0
    for at_s, begins, key in events:
        flying = list(moved)
        rates = topology.rates([flow(*transfers[it][2][:2]) for it in flying])
        for it, rate in zip(flying, rates, strict=True):
            moved[it] += rate * (at_s - before_s)
        before_s = at_s
        source, target = transfers[key][2][:2]
        if begins:
            moved[key] = 0.0
            flights.begin(key, source, target, at_s)
        else:
            could = topology.rates([flow(source, target)])[0] * transfers[key][1]
            assert flights.end(key, at_s) == pytest.approx(moved.pop(key) / could if could else 1.0)
    assert flights.flows() == []


def test_of_very_many_flows_each_resource_is_shared_evenly():
    flights = Flights(make_topology(Node(name="a", egress_bytes_per_s=100.0), "b", "c"))
    for key in range(2 * MAX_EXACT):
        flights.begin(key, "a", "bc"[key % 2], 0.0)
    assert [flights.end(key, 10.0) for key in range(2 * MAX_EXACT)] == pytest.approx(
        [1 / (2 * MAX_EXACT)] * 2 * MAX_EXACT
    )
