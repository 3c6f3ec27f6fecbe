import pytest

from cluster.topology.link_estimate import EstimateConfig, LinkState
from cluster.topology.link_model import LinkModel, TransferSample
from cluster.topology.link_table import LinkTable
from cluster.topology.topology import Node

pytestmark = pytest.mark.unit

GOOD = LinkModel(alpha_s=1e-4, beta_bytes_per_s=1e9)
SLOW = LinkModel(alpha_s=1e-4, beta_bytes_per_s=1e8)
PAIRS = [(a, b) for a in "abc" for b in "abc" if a != b]


@pytest.fixture
def table():
    made = LinkTable()
    for source, target in PAIRS:
        made.probed(source, target, "tcp", GOOD, 0.0)
    return made


def transfer(table, source, target, model, now_s, *, kind="tcp", share=1.0):
    num_bytes = 8 << 20
    seconds = model.alpha_s + num_bytes / model.beta_bytes_per_s / share
    return table.transferred(
        source, target, kind, [TransferSample(num_bytes=num_bytes, seconds=seconds, share=share)], now_s
    )


def test_one_slow_link_is_degraded_and_the_others_are_not(table):
    for step in range(10):
        for source, target in PAIRS:
            transfer(table, source, target, SLOW if (source, target) == ("a", "b") else GOOD, step * 0.1)
    states = {(belief.source, belief.target): belief.state for belief in table.beliefs(1.0)}
    assert {pair for pair, state in states.items() if state is LinkState.DEGRADED} == {("a", "b")}
    assert table.topology([Node(name=name) for name in "abc"]).link("a", "b").beta_bytes_per_s == pytest.approx(1e8)


def test_a_new_link_is_held_to_its_kind(table):
    assert table.probed("a", "d", "tcp", SLOW, 1.0) is LinkState.DEGRADED
    assert table.probed("d", "a", "nccl", SLOW, 1.0) is LinkState.GOOD


def test_a_surveyed_link_is_held_to_what_the_survey_found_and_not_to_its_kind(table):
    assert table.surveyed("a", "d", SLOW, 1.0) is LinkState.GOOD
    for step in range(10):
        assert transfer(table, "a", "d", SLOW, 1.0 + step * 0.1) is LinkState.GOOD
    slower = LinkModel(alpha_s=1e-4, beta_bytes_per_s=2e7)
    states = [transfer(table, "a", "d", slower, 3.0 + step * 0.1) for step in range(10)]
    assert states[-1] is LinkState.DEGRADED
    assert {belief.kind for belief in table.beliefs(4.0) if belief.target == "d"} == {"tcp"}


def test_stale_links_are_to_be_probed_the_degraded_ones_first(table):
    config = EstimateConfig()
    table.probed("a", "b", "tcp", SLOW, 1.0)
    assert table.to_probe(2.0) == []
    assert table.to_probe(1.0 + config.degraded_stale_after_s) == [("a", "b")]
    transfer(table, "b", "c", GOOD, 50.0)
    stale = table.to_probe(config.stale_after_s + 1.0)
    assert stale[0] == ("a", "b")
    assert ("b", "c") not in stale
    assert len(stale) == 5


def test_another_transport_is_another_link(table):
    transfer(table, "a", "b", SLOW, 5.0, kind="nccl")
    belief = next(belief for belief in table.beliefs(5.0) if (belief.source, belief.target) == ("a", "b"))
    assert (belief.kind, belief.num_samples, belief.state) == ("nccl", 1, LinkState.UNKNOWN)


def test_of_a_node_that_is_gone_nothing_is_known(table):
    table.gone("b")
    assert table.state("a", "b") is LinkState.UNKNOWN
    assert {(belief.source, belief.target) for belief in table.beliefs(0.0)} == {("a", "c"), ("c", "a")}
    assert ("a", "b") in table.topology([Node(name=name) for name in "abc"]).missing()


def test_two_transports_of_a_pair_are_believed_beside_each_other_and_the_one_that_kv_takes_counts(table):
    fast = LinkModel(alpha_s=1e-5, beta_bytes_per_s=1e10)
    for step in range(8):
        assert transfer(table, "a", "b", fast, 1.0 + step, kind="nccl") is (
            LinkState.GOOD if step >= 3 else LinkState.UNKNOWN
        )
        table.probed("a", "b", "tcp", GOOD, 1.0 + step)
    assert (table.kind("a", "b"), table.state("a", "b")) == ("nccl", LinkState.GOOD)
    assert table.topology([Node(name=name) for name in "abc"]).link("a", "b").beta_bytes_per_s == pytest.approx(
        1e10, rel=0.05
    )
    assert transfer(table, "a", "b", GOOD, 9.0, kind="tcp") is LinkState.GOOD
    assert table.topology([Node(name=name) for name in "abc"]).link("a", "b") == GOOD
    transfer(table, "a", "b", fast, 10.0, kind="nccl")
    assert len([belief for belief in table.beliefs(10.0) if (belief.source, belief.target) == ("a", "b")]) == 1
    table.probed("a", "b", "tcp", GOOD, 10.0 + EstimateConfig().stale_after_s)
    assert table.kind("a", "b") == "tcp"


def test_too_few_of_a_kind_are_counted_once_a_second(table):
    table.probed("x", "y", "nccl", GOOD, 1.0)
    assert table._usuals["nccl"] == (1.0, None)
    table._estimates["nccl"] = NotCounted(table._estimates["nccl"])
    transfer(table, "x", "y", GOOD, 1.9, kind="nccl")
    with pytest.raises(AssertionError, match="counted"):
        transfer(table, "x", "y", GOOD, 2.0, kind="nccl")


class NotCounted(dict):
    def values(self):
        raise AssertionError("counted")


def test_a_survey_is_stale_from_the_start(table):
    table.gone("c")
    table.surveyed("a", "c", GOOD, 5.0)
    assert table.to_probe(5.0) == [("a", "c")]
    table.probed("a", "c", "tcp", GOOD, 6.0)
    assert table.to_probe(6.0) == []
