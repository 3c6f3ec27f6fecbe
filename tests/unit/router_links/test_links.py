import logging

import pytest

from cluster.engine.sampling_params import SamplingParams
from cluster.messages import Holder, SequenceState, Transfers
from cluster.topology.topology import Node
from router.ledger import Place, Step
from router.ledger.instructions import Note
from router.links.beliefs import LinkBeliefs
from router.links.links import FORGET_AFTER_S
from router.scheduler import Assignment
from tests.unit.router_links.fake_nodes import GOOD, SLOW, FakeNodes, pair_of
from tests.unit.topology.factories import make_topology

pytestmark = pytest.mark.unit

AB, BA = ("a", "b"), ("b", "a")


@pytest.fixture
def nodes() -> FakeNodes:
    """a and b, probed."""
    nodes = FakeNodes("a", "b")
    nodes.probe_all()
    return nodes


def test_of_nodes_that_come_every_pair_is_probed_both_ways_disjoint_ones_at_once():
    nodes = FakeNodes("a", "b", "c", "d")
    began = [nodes.act()]
    assert len(began[0]) == 2
    assert len({node for pair in began[0] for node in pair}) == 4
    while began[-1]:
        nodes.answer_all()
        began.append(nodes.act())
    pairs = [pair for each in began for pair in each]
    assert sorted(pairs) == sorted({(a, b) for a in "abcd" for b in "abcd" if a != b})
    assert len(began) == 7
    assert {(row.state, row.transport, row.num_connections) for row in nodes.links.link_rows()} == {("good", "tcp", 2)}


def test_a_node_is_probed_with_itself_when_two_instances_share_it():
    nodes = FakeNodes("a")
    assert nodes.act() == []
    nodes.join("a", 1)
    assert nodes.act() == [("a", "a")]
    assert {nodes.said[0][0].instance, nodes.said[0][1].target.instance} == {"a0", "a1"}


def test_what_is_found_is_forecast_and_shown(nodes):
    a, b = nodes.holders
    nodes.act()
    assert nodes.links.forecast.transfer_s(a, b, 1600) == pytest.approx(1e-4 + 1.6e6 / 1e8)
    row = nodes.row("a", "b")
    assert (row.alpha_s, row.beta_bytes_per_s) == (pytest.approx(1e-4), pytest.approx(1e8))
    assert (row.num_samples, row.is_stale, row.error) == (4, False, "")


def test_a_link_slowed_in_mid_run_is_noticed_within_ten_transfers_shown_said_once_and_avoided(nodes, caplog):
    a, b = nodes.holders
    for _ in range(20):
        nodes.transfer(a, b)
        nodes.act()
    nodes.network[AB] = SLOW
    nodes.transfer(a, b)
    num_transfers = 1
    while nodes.row("a", "b").state == "good" and num_transfers < 10:
        nodes.transfer(a, b)
        nodes.act(1.0)
        num_transfers += 1
    assert nodes.row("a", "b").state == "degraded"
    for _ in range(10):
        nodes.transfer(a, b)
        nodes.act(1.0)
    nodes.act(5.0)
    assert [record.message.split(" is ")[0] for record in caplog.records] == ["link a → b"]
    assert nodes.row("b", "a").state == "good"
    assert nodes.links.forecast.transfer_s(a, b, 1600) > 5 * nodes.links.forecast.transfer_s(b, a, 1600)


def test_a_degraded_link_is_probed_again_and_taken_back_within_a_minute_of_recovering(nodes, caplog):
    caplog.set_level(logging.INFO)
    a, b = nodes.holders
    nodes.network[AB] = SLOW
    for _ in range(12):
        nodes.transfer(a, b)
        nodes.act(0.5)
    nodes.act(5.0)
    assert nodes.row("a", "b").state == "degraded"
    for _ in range(200):  # nobody uses it any more
        if AB in nodes.act(0.25):
            nodes.answer_all()
    assert nodes.row("a", "b").state == "degraded"
    del nodes.network[AB]
    recovered_s = nodes.now_s
    while nodes.row("a", "b").state != "good":
        assert nodes.now_s < recovered_s + 60.0
        nodes.act(0.25)
        nodes.answer_all(0.0)
    assert [word in caplog.text for word in ("a → b is degraded", "a → b has recovered")] == [True, True]
    assert caplog.text.count("degraded") == caplog.text.count("recovered") == 1


def test_what_was_slow_in_company_is_no_slow_link():
    topology = make_topology(
        *(Node(name=name, egress_bytes_per_s=1e8) for name in "abcd"), alpha_s=GOOD.alpha_s, beta=1e8
    )
    nodes = FakeNodes("a", "b", "c", "d", topology=topology)
    a, *others = nodes.holders
    for _ in range(10):  # three flows at once out of a node, told of one after the other
        seconds = 3 * (4 << 20) / 1e8
        nodes.now_s += seconds
        for target in others:
            nodes.links.on_measured(a, Transfers(samples=(nodes.sample(target, 4 << 20, seconds),)))
        nodes.act(0.1)
    nodes.act(3.0)
    rows = [row for row in nodes.links.link_rows() if row.pair[0] == "a"]
    assert [(row.state, row.num_samples) for row in rows] == [("good", 10)] * 3
    assert all(row.beta_bytes_per_s == pytest.approx(1e8, rel=0.02) for row in rows)


@pytest.mark.parametrize("takes_s", [2.0, 4.0, 8.0])
def test_long_company_makes_no_good_link_degraded(takes_s):
    topology = make_topology(Node(name="p", egress_bytes_per_s=1e8), *"def", alpha_s=GOOD.alpha_s, beta=1e8)
    nodes = FakeNodes(*"pdef", topology=topology)
    p, d, *others = nodes.holders
    states = set()
    for step in range(241):
        if step * 0.25 % takes_s == 0.0:
            for target in others:
                nodes.links.on_note(Note(request_id=target.instance, step=Step.PASSED, holder=target, peer=p))
                if step:
                    sample = nodes.sample(target, int(takes_s * 1e8 / 3), takes_s)
                    nodes.links.on_measured(p, Transfers(samples=(sample,)))
                nodes.links.on_assigned(
                    Assignment(target.instance, Place(p, "", ""), Place(target, "", ""), 1, num_missing_tokens=160)
                )
        nodes.links.on_measured(p, Transfers(samples=(nodes.sample(d, 3_000_000, 0.09),)))
        nodes.act(0.25)
        states.add(nodes.row("p", "d").state)
    assert states == {"good"}


def test_a_round_learns_of_so_many_links_and_the_next_of_the_others():
    names = [f"n{number:02}" for number in range(8)]
    nodes = FakeNodes(*names, topology=make_topology(*names, alpha_s=GOOD.alpha_s, beta=1e8))
    links = [(a, b) for a in nodes.holders for b in nodes.holders if a is not b]
    for source, target in links:
        for _ in range(3):
            nodes.links.on_measured(source, Transfers(samples=(nodes.sample(target, 4 << 20, 0.04),)))
    learned = [0]
    while learned[-1] < 3 * len(links):
        nodes.act(1.1)
        learned.append(sum(row.num_samples for row in nodes.links.link_rows()))
    assert learned == [0, 3 * 32, 3 * 56]


def test_a_link_slowed_to_a_tenth_is_noticed_though_kv_is_promised_to_many_others_of_its_node():
    names = ["p", *"defghi"]
    topology = make_topology(Node(name="p", egress_bytes_per_s=1e8), *names[1:], alpha_s=GOOD.alpha_s, beta=1e8)
    nodes = FakeNodes(*names, topology=topology)
    p, d, *others = nodes.holders
    for target in others:
        nodes.links.on_assigned(Assignment(target.instance, Place(p, "", ""), Place(target, "", ""), 1, 160))
    nodes.network["p", "d"] = SLOW
    for _ in range(10):
        nodes.transfer(p, d)
        nodes.act()
    nodes.act(1.1)
    assert nodes.row("p", "d").state == "degraded"


def test_stale_links_are_probed_when_idle_and_not_while_kv_is_promised_to_them(nodes):
    a, b = nodes.holders
    assert nodes.act(59.0) == []
    nodes.ledger.admit(request("r1", 100))
    nodes.links.on_note(Note(request_id="r1", step=Step.GRANTED, holder=a, peer=b, reason="migrate"))
    assert nodes.act(2.0) == []
    nodes.links.on_note(Note(request_id="r1", step=Step.PASSED, holder=b, peer=a))
    assert len(nodes.act(1.0)) == 1


def test_what_is_promised_is_what_is_missing_there(nodes):
    a, b = nodes.holders
    alone_s = nodes.links.forecast.transfer_s(a, b, 1600)
    assigned = Assignment("r1", Place(a, "", ""), Place(b, "", ""), 1, num_missing_tokens=160)
    nodes.links.on_assigned(assigned)
    nodes.links.on_note(Note(request_id="r1", step=Step.DISPATCHED, holder=a))
    nodes.links.on_note(Note(request_id="r1", step=Step.GRANTED, holder=a, peer=b, reason="prefill"))
    assert nodes.links.forecast.transfer_s(a, b, 1600) == pytest.approx(alone_s + 160_000 / 1e8)
    nodes.links.on_note(Note(request_id="r1", step=Step.FINISHED, holder=b))
    assert nodes.links.forecast.transfer_s(a, b, 1600) == alone_s
    nodes.links.on_assigned(Assignment("r2", Place(a, "", ""), None, 2, num_missing_tokens=160))
    assert nodes.links.forecast.flows == []


def test_a_prompt_is_under_way_beside_the_one_before_it_from_that_ones_first_token(nodes):
    a, b = nodes.holders
    alone_s = nodes.links.forecast.transfer_s(a, b, 1600)
    for number in (1, 2):
        nodes.links.on_assigned(Assignment(f"r{number}", Place(a, "", ""), Place(b, "", ""), number, 160))
    assert nodes.links.forecast.transfer_s(a, b, 1600) == pytest.approx(alone_s + 160_000 / 1e8)
    nodes.links.on_tokens("r1", 1)
    assert nodes.links.forecast.transfer_s(a, b, 1600) == pytest.approx(alone_s + 320_000 / 1e8)


def test_a_survey_before_the_start_is_what_is_known_at_first():
    topology = make_topology(Node(name="a", group="g", egress_bytes_per_s=5e7), "b", alpha_s=1e-3, beta=1e8)
    nodes = FakeNodes("a", "b", "c", topology=topology)
    assert {(row.pair, row.state) for row in nodes.links.link_rows() if row.state == "good"} == {
        (AB, "good"),
        (BA, "good"),
    }
    assert all("c" in pair for pair in nodes.act())
    assert nodes.links.forecast.transfer_s(*nodes.holders[:2], 1600) == pytest.approx(1e-3 + 1.6e6 / 5e7)
    assert [(row.node.name, row.node.group, row.instances) for row in nodes.links.node_rows()] == [
        ("a", "g", ("a0",)),
        ("b", "", ("b0",)),
        ("c", "", ("c0",)),
    ]


def test_a_node_that_comes_back_after_long_is_as_it_was_surveyed_and_probed_anew():
    nodes = FakeNodes("a", "b", topology=make_topology("a", "b", alpha_s=1e-4, beta=1e8))
    for _ in range(2):
        nodes.act(5.0)  # rested
        nodes.answer_all()
    assert not any(row.is_stale for row in nodes.links.link_rows())
    nodes.links.on_lost(nodes.holders[1])
    nodes.act(FORGET_AFTER_S)
    nodes.network = {AB: SLOW, BA: SLOW}
    nodes.join("b")
    for _ in range(2):
        nodes.act(5.0)
        nodes.answer_all()
    assert [row.state for row in nodes.links.link_rows()] == ["degraded"] * 2


def test_the_whole_topology_has_nodes_without_instances_as_they_were_surveyed():
    topology = make_topology("a", "b", "spare", alpha_s=1e-3, beta=5e7)
    nodes = FakeNodes("a", "b", "new", topology=topology)
    nodes.probe_all()
    nodes.links.order()
    nodes.probe_all()
    whole = nodes.links.topology()
    assert [node.name for node in whole.nodes] == ["a", "b", "spare", "new"]
    assert whole.link("a", "spare").beta_bytes_per_s == 5e7
    assert whole.link("a", "b").beta_bytes_per_s == pytest.approx(1e8)
    assert whole.link("a", "new").beta_bytes_per_s == pytest.approx(1e8)
    assert ("new", "spare") in whole.missing()


def test_who_asks_for_the_topology_keeps_no_news_from_the_forecast(nodes):
    a, b = nodes.holders
    nodes.network[AB] = SLOW
    nodes.links.order()
    for _ in range(2):
        nodes.act()
        nodes.answer_all()
        nodes.links.topology()
    nodes.act()
    assert nodes.links.forecast.transfer_s(a, b, 1600) == pytest.approx(1e-4 + 1.6e6 / 1e7)


def test_a_way_through_which_nothing_gets_is_infinite_shown_and_tried_again(caplog):
    nodes = FakeNodes("a", "b")
    a, b = nodes.holders
    nodes.broken = {AB}
    for _ in range(12):
        nodes.act(0.5)
        nodes.answer_all(0.0)
    nodes.act()
    assert (nodes.row("a", "b").state, nodes.row("a", "b").error) == ("unreachable", "refused")
    assert nodes.links.forecast.transfer_s(a, b, 1) == float("inf")
    assert nodes.links.forecast.transfer_s(b, a, 1) < 1.0
    assert [record.message for record in caplog.records] == ["link a → b: refused"]
    nodes.broken = set()
    for _ in range(60):
        nodes.act(0.25)
        nodes.answer_all(0.0)
    nodes.act()
    assert nodes.row("a", "b").state == "good"
    assert nodes.links.forecast.transfer_s(a, b, 1) < 1.0
    assert caplog.records[-1].message == "link a → b works again"


@pytest.mark.parametrize("sick", ["a0", "b0"])
def test_one_sick_instance_cuts_its_node_off_from_nobody(sick):
    nodes = FakeNodes("a", "b")
    nodes.join("a", 1)
    nodes.join("b", 1)
    nodes.sick = {Holder(sick, 1)}
    for _ in range(240):
        nodes.act(0.5)
        nodes.answer_all(0.0)
        assert not nodes.links.live().broken & {AB, BA}
    assert {nodes.row(*AB).state, nodes.row(*BA).state} == {"good"}


def test_a_failed_handover_has_the_way_probed_at_once(nodes):
    a, b = nodes.holders
    assert nodes.act() == []
    nodes.links.on_note(Note(request_id="r", step=Step.KEPT, holder=a, peer=b, reason="reset", unreachable=True))
    assert nodes.act() == [AB]
    nodes.answer_all()
    assert nodes.act() == []


def test_a_probe_that_is_never_answered_is_given_up_and_late_answers_are_nothing(nodes):
    nodes.now_s += 70.0
    [first] = nodes.act()
    assert nodes.act(10.0) == []
    late = nodes.said[-1]
    nodes.act(1.0)
    assert nodes.row(*first).error == "the probe was not answered"
    nodes.answer(*late)
    assert nodes.row(*first).error == "the probe was not answered"
    for _ in range(10):
        nodes.act(11.0)
    assert nodes.row(*first).state == "good"  # that says nothing of the link


def test_an_answer_from_somebody_else_is_nothing():
    nodes = FakeNodes("a", "b")
    [pair] = nodes.act()
    source, probe = nodes.said[0]
    nodes.answer(Holder("b0" if source.instance == "a0" else "a0", 1), probe)
    assert nodes.row(*pair).state == "unknown"


def test_who_is_lost_in_a_probe_is_replaced_by_another_on_its_node_and_holds_nothing_up():
    nodes = FakeNodes("a", "b", "c")
    nodes.join("a", 1)
    nodes.act()
    source, _ = nodes.said[-1]
    nodes.links.on_lost(source)
    nodes.answer_all()
    nodes.probe_all()
    lost = source.instance[:-1]
    alive = {node for node in "abc" if node != lost} | ({"a"} if lost == "a" else set())
    states = {row.pair: row.state for row in nodes.links.link_rows() if set(row.pair) <= alive and len({*row.pair}) > 1}
    assert set(states.values()) == {"good"}


def test_a_node_is_remembered_for_a_while_after_its_last_instance(nodes):
    _, b = nodes.holders
    nodes.links.on_lost(b)
    nodes.act(FORGET_AFTER_S - 1.0)
    assert nodes.row("a", "b").state == "good"
    nodes.join("b")
    nodes.act(2.0)
    assert nodes.row("a", "b").state == "good"
    nodes.links.on_lost(b)
    nodes.act(FORGET_AFTER_S)
    assert nodes.links.link_rows() == []
    assert [row.node.name for row in nodes.links.node_rows()] == ["a"]
    nodes.join("b")
    assert nodes.row("a", "b").state == "unknown"


def test_an_order_has_everything_probed_and_says_when_it_is_done(nodes):
    nodes.join("c")
    order = nodes.links.order(2.0)
    assert len(order.pairs) == 6
    nodes.broken = {("c", "a")}
    while order.pairs:
        assert all(probe.budget_s == 2.0 for _, probe in nodes.said)
        nodes.act()
        nodes.answer_all()
    assert order.num_failed == 1
    nodes.links.withdraw(order)
    assert all("c" in pair for pair in nodes.act(3.0))


def test_an_order_does_not_wait_for_who_is_gone(nodes):
    c = nodes.join("c")
    order = nodes.links.order()
    nodes.links.on_lost(c)
    assert set(order.pairs) == {AB, BA}
    assert order.num_failed == 4


def request(request_id: str, num_tokens: int) -> SequenceState:
    return SequenceState(
        request_id=request_id,
        front="f",
        prompt_token_ids=tuple(range(num_tokens)),
        sampling_params=SamplingParams(),
        arrival_time_s=0.0,
    )


def test_an_answer_has_only_the_links_between_free_nodes_looked_at(monkeypatch):
    nodes = FakeNodes(*(f"n{at:02}" for at in range(20)))
    asked = []
    knows = LinkBeliefs.knows
    monkeypatch.setattr(LinkBeliefs, "knows", lambda self, pair: asked.append(pair) or knows(self, pair))
    assert len(nodes.act(1.0)) == 10
    asked.clear()
    source, probe = nodes.said.pop(0)
    nodes.answer(source, probe)
    [again] = nodes.act(0.1)
    assert again[::-1] == pair_of(source, probe)
    assert len(asked) == 2


def test_of_a_large_cluster_no_picture_is_made_for_each_that_joins(monkeypatch):
    made = []
    remake = LinkBeliefs.remake_topology
    monkeypatch.setattr(LinkBeliefs, "remake_topology", lambda self: made.append(1) or remake(self))
    nodes = FakeNodes(*(f"n{at:02}" for at in range(64)))
    assert len(made) <= 32
    first, *_, last = nodes.holders
    nodes.transfer(first, last)
    assert nodes.act() == []
    assert len(nodes.act(1.0)) == 32
    assert nodes.links.forecast.transfer_s(first, last, 1) < float("inf")


def test_a_probe_that_was_under_way_before_it_was_ordered_is_not_what_was_ordered():
    nodes = FakeNodes("a", "b")
    assert len(nodes.act(1.0)) == 1
    order = nodes.links.order(2.0)
    nodes.answer_all()
    assert len(order.pairs) == 2
    while nodes.act():
        assert [probe.budget_s for _, probe in nodes.said] == [2.0]
        nodes.answer_all()
    assert not order.pairs
