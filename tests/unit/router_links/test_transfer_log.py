"""Shares by hand: over one link, and out of one node."""

import random

import pytest

from cluster.topology.link_model import LinkModel
from cluster.topology.topology import Node
from router.links.transfer_log import Transfer, TransferLog, as_sample
from tests.unit.topology.factories import make_topology

pytestmark = pytest.mark.unit


@pytest.fixture
def log() -> TransferLog:
    return TransferLog(make_topology(Node(name="a", egress_bytes_per_s=100.0), "b", "c"), max_hold_s=1.0)


def transfer(source, target, begun_s, ended_s, **options):
    return Transfer(
        source=source,
        target=target,
        transport="tcp",
        num_bytes=1000,
        seconds=ended_s - begun_s,
        ended_s=ended_s,
        **options,
    )


def shares(log, now_s):
    return [(it.source + it.target, it.ended_s, pytest.approx(share)) for it, share in log.advance(now_s)]


def test_alone_a_transfer_has_all_of_its_link(log):
    log.tell(transfer("a", "b", 0.0, 10.0))
    assert shares(log, 11.0) == [("ab", 10.0, 1.0)]


def test_what_is_told_late_and_out_of_order_counts_as_it_happened(log):
    told = [transfer("a", "c", 0.0, 30.0), transfer("a", "b", 10.0, 20.0), transfer("b", "c", 12.0, 18.0)]
    for seed in range(6):
        again = TransferLog(log._flights._topology, max_hold_s=1.0)
        for one in random.Random(seed).sample(told, 3):
            again.tell(one)
        assert shares(again, 31.0) == [("bc", 18.0, 1.0), ("ab", 20.0, 0.5), ("ac", 30.0, 25 / 30)]


def test_one_after_the_other_is_no_company(log):
    log.tell(transfer("a", "b", 10.0, 20.0))
    log.tell(transfer("a", "b", 0.0, 10.0))
    assert shares(log, 21.0) == [("ab", 10.0, 1.0), ("ab", 20.0, 1.0)]


def test_a_transfer_is_held_back_until_everybody_has_spoken(log):
    log.tell(transfer("a", "b", 0.0, 10.0))
    assert shares(log, 6.0) == []
    log.tell(transfer("a", "c", 5.0, 11.0))
    assert shares(log, 11.0) == [("ab", 10.0, 0.75)]
    assert log.busy_nodes == {"a", "c"}
    assert shares(log, 12.0) == [("ac", 11.0, (2.5 + 1.0) / 6.0)]
    assert log.busy_nodes == set()


def test_it_is_held_back_for_as_long_as_transfers_take_of_late():
    log = TransferLog(make_topology("a", "b"))
    log.tell(transfer("b", "a", 0.0, 4.0))
    log.tell(transfer("a", "b", 0.0, 0.5))
    assert shares(log, 4.2) == []
    assert shares(log, 4.5) == [("ab", 0.5, 1.0)]
    for step in range(100):
        log.tell(transfer("a", "b", 5.0 + step * 0.1, 5.05 + step * 0.1))
    assert shares(log, 15.96)[-1][1] == pytest.approx(11.95)  # however many short ones there were since
    log.tell(transfer("a", "b", 34.0, 34.1))
    assert shares(log, 35.2)[-1][1] == 34.1


@pytest.mark.parametrize("takes_s", [2.0, 8.0])
def test_company_that_takes_long_is_known_before_its_neighbours_are_replayed(log, takes_s):
    log = TransferLog(log._flights._topology)
    found = []
    for step in range(1, 200):
        now_s = step * 0.25
        if now_s % takes_s == 0.0:
            log.tell(transfer("a", "c", now_s - takes_s, now_s))
        log.tell(transfer("a", "b", now_s - 0.1, now_s))
        found += [share for name, ended_s, share in shares(log, now_s) if name == "ab" and ended_s > 2 * takes_s]
    assert found == [0.5] * len(found)


def test_what_is_promised_and_still_under_way_was_company(log):
    log.promised("r", "a", "c", 0.0)
    log.promised("waits behind it", "a", "c", 0.0)
    log.promised("to itself", "a", "b", 0.0)
    log.promised("later", "c", "b", 10.5)
    log.tell(transfer("a", "b", 0.0, 1.0))
    assert shares(log, 2.0) == [("ab", 1.0, 0.5)]
    log.settled("r")
    log.settled("waits behind it")
    log.tell(transfer("a", "b", 9.5, 10.0))
    assert shares(log, 11.0) == [("ab", 10.0, 1.0)]


def test_who_comes_too_late_has_the_company_of_now_and_who_began_long_ago_is_company_from_now_on(log):
    assert shares(log, 11.0) == []
    log.tell(transfer("a", "b", 0.0, 9.0))
    assert shares(log, 11.0) == [("ab", 9.0, 1.0)]
    log.tell(transfer("a", "b", 0.0, 20.0))
    log.tell(transfer("a", "c", 15.0, 20.0))
    assert shares(log, 13.0) == []
    log.tell(transfer("a", "c", 8.0, 9.0))
    assert shares(log, 13.0) == [("ac", 9.0, 0.5)]
    assert shares(log, 21.0) == [("ab", 20.0, 0.75), ("ac", 20.0, 0.5)]


def test_it_is_bounded():
    log = TransferLog(make_topology("a", "b"), max_transfers=2)
    for end_s in (1.0, 2.0, 3.0):
        log.tell(transfer("a", "b", 0.0, end_s))
    assert [end_s for _, end_s, _ in shares(log, 10.0)] == [1.0, 2.0]
    log.tell(transfer("a", "b", 10.0, 11.0))
    assert len(shares(log, 20.0)) == 1


def test_of_a_node_that_is_gone_nothing_is_left_and_its_company_is_over(log):
    log.tell(transfer("a", "b", 0.0, 10.0))
    log.tell(transfer("a", "c", 0.0, 20.0))
    assert shares(log, 6.0) == []
    log.gone("b")
    assert log.busy_nodes == {"a", "c"}
    assert shares(log, 21.0) == [("ac", 20.0, (2.5 + 15.0) / 20.0)]


def test_an_unknown_link_is_nobodys_company():
    log = TransferLog(make_topology("a", "b", links={("a", "b"): float("nan")}))
    log.tell(transfer("a", "b", 0.0, 10.0))
    log.tell(transfer("b", "a", 0.0, 10.0))
    assert [share for _, _, share in shares(log, 20.0)] == [1.0, 1.0]


def test_company_excuses_up_to_what_the_link_gives_and_no_further():
    believed = LinkModel(alpha_s=1.0, beta_bytes_per_s=100.0)  # 1000 bytes: 11 s
    slow, usual, fast = (transfer("a", "b", 0.0, seconds) for seconds in (41.0, 16.0, 9.0))
    assert as_sample(slow, 0.5, believed).share == 0.5
    assert as_sample(usual, 0.5, believed).share == pytest.approx(10.0 / 15.0)
    assert as_sample(fast, 0.5, believed).share == 1.0
    assert as_sample(slow, 1.0, believed).share == 1.0
    assert as_sample(slow, 0.5, None).share == 0.5
