import asyncio
from collections import Counter

import pytest

from cluster.links.probe.node import ProbeTarget
from cluster.messages import Holder, Probed, TransferSample
from cluster.topology.topology import Node
from deploy.errors import DeployError, MemberFailed
from deploy.probing.fans import fans
from deploy.probing.survey import Unreachable, explain, survey
from tests.unit.waitless import run_without_waiting

pytestmark = pytest.mark.unit

ALPHA_S, BETA, UPLINK = 1e-3, 1e9, 1.5e9


class FakeNetwork:
    """Links of one kind, but for those that are given; `broken` pairs have no way; `dead` nodes do not start."""

    def __init__(self, names, *, betas=(), broken=(), dead=(), uplinks=()):
        self.betas, self.broken, self.dead, self.uplinks = dict(betas), set(broken), set(dead), dict(uplinks)
        self.probers = {name: FakeProber(self, name) for name in names}
        self.nodes = [Node(name=name, num_cpus=4.0) for name in names]
        self.frozen, self.gone, self.uplink, self.asked, self.probe_s = set(), set(), float("inf"), Counter(), 0.0
        self.said, self.busy, self.most_busy, self.rounds = [], Counter(), 0, []

    def beta(self, source, target):
        return self.betas.get((source, target), BETA)

    async def survey(self, budget_s=10.0):
        return await survey(self.probers, self.nodes, budget_s, self.said.append)

    async def use(self, *names):
        self.busy.update(names)
        self.most_busy = max(self.most_busy, *self.busy.values())
        await asyncio.sleep(0)
        self.busy.subtract(names)


class FakeProber:
    def __init__(self, network, name):
        self.network, self.name = network, name
        self.was_stopped = self.was_killed = False

    async def start(self):
        if self.name in self.network.dead:
            raise MemberFailed("its process is gone")
        return ProbeTarget(holder=Holder(self.name, 1), link_address=f"{self.name}:1")

    async def probe(self, target, budget_s):
        name = target.holder.instance
        await self._answer()
        await self.network.use(self.name, name)
        if name in self.network.frozen | self.network.gone or (self.name, name) in self.network.broken:
            return Probed(number=0, target=target.holder, error="timed out")
        return self._probed(target.holder, self.network.beta(self.name, name))

    async def probe_within(self, budget_s):
        await self._answer()
        return self._probed(Holder(self.name, 2), 10 * BETA)

    async def _answer(self):
        self.network.asked[self.name] += 1
        if self.name in self.network.gone:
            raise MemberFailed("its process is gone")
        if self.name in self.network.frozen:
            await asyncio.Event().wait()
        await asyncio.sleep(self.network.probe_s)

    async def flood(self, targets, seconds):
        names = [target.holder.instance for target in targets]
        assert not any((self.name, name) in self.network.broken for name in names)
        limit = self.network.uplinks.get(self.name, self.network.uplink)
        return min(sum(self.network.beta(self.name, name) for name in names), limit)

    async def stop(self):
        self.was_stopped = True

    def kill(self):
        self.was_killed = True

    def _probed(self, holder, beta):
        samples = tuple(
            TransferSample(target=holder, transport="tcp", num_bytes=size, seconds=ALPHA_S + size / beta, ended_s=0.0)
            for size in (4096, 1 << 20, 4 << 20)
        )
        return Probed(number=0, target=holder, transport="tcp", samples=samples, num_connections=2)


async def test_every_pair_is_measured_both_ways_one_pair_a_node_at_a_time():
    network = FakeNetwork("abcd", betas={("a", "b"): 1e8})
    found = await network.survey()
    assert found.topology.link("a", "b").beta_bytes_per_s == pytest.approx(1e8)
    assert found.topology.link("b", "a").beta_bytes_per_s == pytest.approx(BETA)
    assert found.topology.link("c", "d").alpha_s == pytest.approx(ALPHA_S)
    assert found.topology.link("a", "a").beta_bytes_per_s == pytest.approx(10 * BETA)
    assert not found.topology.missing()
    assert found.topology.node("a").num_cpus == 4.0
    assert network.most_busy == 1
    assert [text for text in network.said if "probing links: round" in text] == [
        f"probing links: round {number} of 3" for number in (1, 2, 3)
    ]
    assert (found.links["a", "b"].transport, found.links["a", "b"].num_connections) == ("tcp", 2)
    assert all(prober.was_stopped and prober.was_killed for prober in network.probers.values())


async def test_an_uplink_that_several_flows_share_is_found_and_no_other():
    found = await FakeNetwork("abcd", uplinks={"b": UPLINK}).survey()
    limits = {node.name: (node.egress_bytes_per_s, node.ingress_bytes_per_s) for node in found.topology.nodes}
    assert limits.pop("b") == (pytest.approx(UPLINK), None)
    assert set(limits.values()) == {(None, None)}


async def test_a_node_has_no_less_in_all_than_its_best_link_alone():
    found = await FakeNetwork("abc", uplinks={"b": 0.8 * BETA}).survey()
    assert found.topology.node("b").egress_bytes_per_s == pytest.approx(BETA)


async def test_a_pair_without_a_way_is_named_and_the_others_are_measured():
    network = FakeNetwork("abc", broken=[("a", "b"), ("b", "a"), ("c", "a")])
    found = await network.survey()
    assert explain(found.unreachable) == [
        "a and b cannot reach each other: timed out",
        "c cannot reach a: timed out",
    ]
    assert set(found.topology.missing()) == {("a", "b"), ("b", "a"), ("c", "a")}


async def test_a_node_where_nothing_starts_is_left_out_by_name():
    found = await FakeNetwork("abc", dead="c").survey()
    assert [node.name for node in found.topology.nodes] == ["a", "b"]
    assert explain(found.unreachable) == ["c cannot be probed: its process is gone"]


async def test_where_nothing_starts_anywhere_it_says_so():
    network = FakeNetwork("ab", dead="ab")
    with pytest.raises(DeployError, match="no node can be probed: a cannot be probed: its process is gone"):
        await network.survey()
    assert all(prober.was_killed for prober in network.probers.values())


async def test_where_no_node_reaches_another_it_says_so():
    with pytest.raises(DeployError, match="no node can reach another: a cannot reach b: timed out"):
        await FakeNetwork("ab", broken=[("a", "b"), ("b", "a")]).survey()


async def test_of_many_nodes_a_part_is_probed_and_the_rest_completed():
    names = [f"n{at:02}" for at in range(60)]
    rack = {name: at // 20 for at, name in enumerate(names)}
    betas = {(a, b): 4e9 if rack[a] == rack[b] else 1e9 for a in names for b in names}
    network = FakeNetwork(names, betas=betas)
    found = await network.survey()
    num_probed = sum(1 for source, target in found.links if source != target)
    assert num_probed == 60 * 16
    assert not found.topology.missing()
    assert found.errors is not None
    assert found.errors[0] < 0.01
    assert any(f"probed {num_probed} of 3540 links" in text for text in network.said)
    assert {node.egress_bytes_per_s for node in found.topology.nodes} == {None}
    wrong = [
        (a, b)
        for a in names
        for b in names
        if a != b and abs(found.topology.link(a, b).beta_bytes_per_s / betas[a, b] - 1) > 0.1
    ]
    assert len(wrong) < 0.1 * 3540


async def test_of_many_nodes_too_every_one_is_measured_against_several():
    network = FakeNetwork([f"n{at:02}" for at in range(60)])
    network.uplink = UPLINK
    found = await network.survey()
    assert [node.egress_bytes_per_s for node in found.topology.nodes] == [pytest.approx(UPLINK)] * 60
    assert not any("egresses" in text for text in network.said)


async def test_how_many_could_not_be_measured_against_several_is_said():
    network = FakeNetwork("abc", broken=[("a", "b"), ("b", "a")])
    await network.survey()
    assert network.said[-1] == "measured 2 of the 6 egresses and ingresses of nodes"


@pytest.mark.parametrize(("how", "num_asked"), [("frozen", 2), ("gone", 1)])
def test_a_node_that_answers_no_more_is_left_out_of_the_rounds_to_come(how, num_asked):
    network = FakeNetwork("abcdefgh")
    setattr(network, how, {"d"})
    found = run_without_waiting(network.survey())
    assert [node.name for node in found.topology.nodes] == list("abcefgh")
    why = {"frozen": "no answer within 8 s", "gone": "its process is gone"}[how]
    assert explain(found.unreachable) == [f"d cannot be probed: {why}"]
    assert network.asked["d"] == num_asked
    assert not found.topology.missing()


async def test_a_node_that_is_cut_off_is_left_out_after_three_others():
    names = "abcdefgh"
    cut = [pair for other in names if other != "d" for pair in (("d", other), (other, "d"))]
    network = FakeNetwork(names, broken=cut)
    found = await network.survey()
    assert [node.name for node in found.topology.nodes] == list("abcefgh")
    assert explain(found.unreachable) == ["d cannot be probed: nothing came through to or from 3 others (timed out)"]
    assert network.asked["d"] == 1 + 3


def test_when_the_time_is_over_it_goes_on_with_what_there_is():
    network = FakeNetwork([f"n{at:02}" for at in range(20)])
    network.probe_s = 2.0
    found = run_without_waiting(network.survey())
    assert len(found.topology) == 20
    assert 0 < len(found.topology.missing()) < 20 * 19
    assert "probing links: given up after 36 s; the rest counts as the median" in network.said
    assert found.unreachable == ()


async def test_one_node_has_only_itself():
    found = await FakeNetwork("a").survey()
    assert found.topology.link("a", "a") is not None
    assert found.unreachable == ()


@pytest.mark.parametrize("number", [3, 4, 5, 9, 10, 11, 64])
def test_every_node_is_a_hub_once_and_no_two_fans_of_a_round_share_a_node(number):
    names = [f"n{at}" for at in range(number)]
    rounds = fans(names)
    assert sorted(fan.hub for fans_now in rounds for fan in fans_now) == sorted(names)
    for fans_now in rounds:
        there = [name for fan in fans_now for name in (fan.hub, *fan.others)]
        assert len(there) == len(set(there))
        assert all(len(fan.others) >= 2 for fan in fans_now)
    assert len(rounds) <= 9


def test_two_nodes_need_no_fans():
    assert fans(["a", "b"]) == []


def test_one_way_is_told_as_one_way():
    assert explain([Unreachable(source="a", target="b", why="no route")]) == ["a cannot reach b: no route"]
