"""The survey of a network: rounds of disjoint pairs, both ways, then every node against several at once."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import fsum
from typing import Any

import numpy as np

from cluster.links.probe.node import ProbeTarget
from cluster.messages import Holder, Probed
from cluster.topology.completion import complete_topology
from cluster.topology.fit import fit_link
from cluster.topology.link_model import LinkModel
from cluster.topology.schedule import Pair, sampled_rounds, tournament
from cluster.topology.topology import Node, Topology
from deploy.errors import DeployError, MemberFailed
from deploy.probing.fans import Fan, fans
from deploy.probing.prober import Prober

Say = Callable[[str], None]

_MAX_ALL = 33  # up to so many nodes every pair is probed
_SAMPLED_PART, _MIN_ROUNDS = 0.05, 16
_LONGEST_PROBE_S, _SHORTEST_PROBE_S = 2.0, 0.1
_FLOOD_PART = 0.5  # of what a probe may take
_IS_LIMITED = 0.85  # flows that have less of their links together are held up by their node
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 2.0
_GRACE_S = 8.0  # for setting a link up, and for its last transfer
_MAX_SILENT = 2  # probes in a row that a node may leave without an answer
_MAX_IN_VAIN = 3  # nodes that one may neither reach nor be reached by, if it has met no other


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyedLink:
    transport: str
    num_samples: int
    num_connections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreachable:
    """`source` and `target` are the same where a node could not be probed at all."""

    source: str
    target: str
    why: str

    def __str__(self) -> str:
        if self.source == self.target:
            return f"{self.source} cannot be probed: {self.why}"
        return f"{self.source} cannot reach {self.target}: {self.why}"


def explain(unreachable: Sequence[Unreachable]) -> list[str]:
    """A line for each pair, both ways in one."""
    why = {(each.source, each.target): each.why for each in unreachable}
    lines = []
    for each in unreachable:
        if (each.target, each.source) not in why or each.source == each.target:
            lines.append(str(each))
        elif each.source < each.target:
            lines.append(f"{each.source} and {each.target} cannot reach each other: {each.why}")
    return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """`topology`: of the nodes that could be probed. `errors`: (median, 9 of 10 below), where pairs were completed."""

    topology: Topology
    links: Mapping[tuple[str, str], SurveyedLink] = field(default_factory=dict)
    unreachable: tuple[Unreachable, ...] = ()
    errors: tuple[float, float] | None = None


async def survey(probers: Mapping[str, Prober], nodes: Sequence[Node], budget_s: float, say: Say) -> Survey:
    """`probers`: one on each node, by name; they have ended at the end. DeployError when nothing could be measured."""
    try:
        return await _Survey(probers, nodes, budget_s, say).run()
    finally:
        await asyncio.gather(*map(_stop, probers.values()))


class _Survey:
    def __init__(self, probers: Mapping[str, Prober], nodes: Sequence[Node], budget_s: float, say: Say) -> None:
        self._probers, self._nodes, self._budget_s, self._say = probers, nodes, budget_s, say
        self._targets: dict[str, ProbeTarget] = {}
        self._models: dict[tuple[str, str], LinkModel] = {}
        self._links: dict[tuple[str, str], SurveyedLink] = {}
        self._unreachable: list[Unreachable] = []
        self._limits: dict[str, dict[str, Any]] = {}
        self._left_out: set[str] = set()
        self._num_silent: Counter[str] = Counter()
        self._num_in_vain: Counter[str] = Counter()
        self._met: set[str] = set()

    async def run(self) -> Survey:
        await self._open()
        names = [node.name for node in self._nodes if node.name in self._targets]
        rng = np.random.default_rng(0)
        every = tournament(names) if len(names) > 1 else []
        fraction = max(_SAMPLED_PART, _MIN_ROUNDS / max(1, len(every)))
        rounds = every if len(names) <= _MAX_ALL else sampled_rounds(names, fraction, rng)
        gathered = fans([names[at] for at in rng.permutation(len(names))])
        share_s = self._budget_s / (1 + 2 * len(rounds) + 2 * _FLOOD_PART * len(gathered))
        probe_s = min(_LONGEST_PROBE_S, max(_SHORTEST_PROBE_S, share_s))
        await self._in_time(2 * self._budget_s, "links", self._probe_links(names, rounds, probe_s))
        topology, errors = await self._known(is_sample=len(rounds) < len(every), rng=rng)
        await self._in_time(self._budget_s, "nodes", self._measure_nodes(gathered, topology, probe_s * _FLOOD_PART))
        nodes = [replace(node, **self._limits.get(node.name, {})) for node in topology.nodes]
        topology = Topology(nodes, topology.alpha_s, topology.beta_bytes_per_s, topology.residual)
        return Survey(topology=topology, links=self._links, unreachable=self._failures(), errors=errors)

    async def _in_time(self, limit_s: float, what: str, work: Coroutine[Any, Any, None]) -> None:
        """What is not known when the time is over stays so. There is time to find out who does not answer."""
        limit_s += _MAX_SILENT * _GRACE_S
        try:
            async with asyncio.timeout(limit_s):
                await work
        except TimeoutError:
            self._say(f"probing {what}: given up after {limit_s:.0f} s; the rest counts as the median")

    async def _open(self) -> None:
        """Starts all; those that cannot be are left out."""
        self._say(f"probing links: starting on {len(self._probers)} nodes")

        async def start(name: str, prober: Prober) -> None:
            try:
                async with asyncio.timeout(_START_TIMEOUT_S):
                    self._targets[name] = await prober.start()
            except (MemberFailed, TimeoutError) as error:
                why = str(error) or f"nothing started there within {_START_TIMEOUT_S:.0f} s"
                self._unreachable.append(Unreachable(source=name, target=name, why=why))

        await asyncio.gather(*(start(name, prober) for name, prober in self._probers.items()))
        if not self._targets:
            raise DeployError(f"no node can be probed: {self._unreachable[0]}")

    async def _probe_links(self, names: Sequence[str], rounds: Sequence[Sequence[Pair]], probe_s: float) -> None:
        """Inside the nodes first. What is not measured there counts as nothing, so that it may fail."""
        self._say("probing links: inside each node")
        await asyncio.gather(*(self._probe_inside(name, probe_s) for name in names))
        for number, pairs in enumerate(rounds, 1):
            self._say(f"probing links: round {number} of {len(rounds)}")
            await asyncio.gather(*(self._probe_both_ways(*pair, probe_s) for pair in pairs))

    async def _probe_inside(self, name: str, probe_s: float) -> None:
        self._keep((name, name), await self._ask(name, self._probers[name].probe_within(probe_s), probe_s))

    async def _probe_both_ways(self, one: str, other: str, probe_s: float) -> None:
        if self._left_out & {one, other}:
            return
        failed = [why for pair in ((one, other), (other, one)) if (why := await self._probe(*pair, probe_s))]
        for node in (one, other):
            if len(failed) < 2:
                self._met.add(node)
            self._num_in_vain[node] += 1
            if node not in self._met and self._num_in_vain[node] == _MAX_IN_VAIN:
                self._leave_out(node, f"nothing came through to or from {_MAX_IN_VAIN} others ({failed[0]})")

    async def _probe(self, source: str, target: str, probe_s: float) -> str:
        """Why it came to nothing; "" when it did not."""
        probed = await self._ask(source, self._probers[source].probe(self._targets[target], probe_s), probe_s)
        if self._keep((source, target), probed):
            return ""
        why = probed.error or "no answer"
        self._unreachable.append(Unreachable(source=source, target=target, why=why))
        return why

    async def _ask(self, node: str, probe: Awaitable[Probed], probe_s: float) -> Probed:
        """Whatever goes wrong is an answer. Who is gone, or silent again, is left out from then on."""
        try:
            async with asyncio.timeout(probe_s + _GRACE_S):
                probed = await probe
        except MemberFailed as error:
            self._leave_out(node, str(error))
            return _failed(str(error))
        except TimeoutError:
            why = f"no answer within {probe_s + _GRACE_S:.0f} s"
            self._num_silent[node] += 1
            if self._num_silent[node] == _MAX_SILENT:
                self._leave_out(node, why)
            return _failed(why)
        self._num_silent[node] = 0
        return probed

    def _leave_out(self, node: str, why: str) -> None:
        """As if nothing had started there: others are not to wait for it in every round."""
        if node not in self._left_out:
            self._left_out.add(node)
            self._unreachable.append(Unreachable(source=node, target=node, why=why))

    def _failures(self) -> tuple[Unreachable, ...]:
        """Of a node that was left out, only that."""
        told = [
            each for each in self._unreachable if each.source == each.target or not self._left_out & set(_ends(each))
        ]
        return tuple(sorted(told, key=_ends))

    def _keep(self, pair: Pair, probed: Probed) -> bool:
        """False: nothing was measured."""
        model = fit_link([(sample.num_bytes, sample.seconds) for sample in probed.samples])
        if model is None:
            return False
        self._models[pair] = model
        self._links[pair] = SurveyedLink(
            transport=probed.transport, num_samples=len(probed.samples), num_connections=probed.num_connections
        )
        return True

    async def _measure_nodes(self, rounds: Sequence[Sequence[Fan]], topology: Topology, seconds: float) -> None:
        """Limits by node and field; none where a node's flows have what their links give."""
        num_measured = 0
        for number, fans_now in enumerate(rounds, 1):
            self._say(f"probing nodes: round {number} of {len(rounds)}")
            for way in ("egress_bytes_per_s", "ingress_bytes_per_s"):
                outward = way.startswith("egress")
                floods = (self._flood(fan, topology, seconds, outward=outward) for fan in fans_now)
                for fan, found in zip(fans_now, await asyncio.gather(*floods), strict=True):
                    num_measured += found is not None
                    if found is not None and found < float("inf"):
                        self._limits.setdefault(fan.hub, {})[way] = found
        if rounds and num_measured < 2 * len(topology):
            self._say(f"measured {num_measured} of the {2 * len(topology)} egresses and ingresses of nodes")

    async def _flood(self, fan: Fan, topology: Topology, seconds: float, *, outward: bool) -> float | None:
        """What the hub has in all; inf when that is what its links promise, None when it could not be measured.

        It is no less than the best of them that was probed.
        """
        promised = self._promised(fan, topology, outward=outward)
        if len(promised) < 2:
            return None
        hub, others = self._probers[fan.hub], [other for other, _ in promised]
        if outward:
            floods = [hub.flood([self._targets[other] for other in others], seconds)]
        else:
            floods = [self._probers[other].flood([self._targets[fan.hub]], seconds) for other in others]
        try:
            async with asyncio.timeout(seconds + _GRACE_S), asyncio.TaskGroup() as group:
                flows = [group.create_task(_rate(flood)) for flood in floods]
        except* (MemberFailed, TimeoutError):
            flows = []
        if not flows:
            return None
        rate = fsum(flow.result() for flow in flows)
        if rate >= _IS_LIMITED * fsum(beta for _, beta in promised):
            return float("inf")
        pairs = [(fan.hub, other) if outward else (other, fan.hub) for other in others]
        return max([rate, *(self._models[pair].beta_bytes_per_s for pair in pairs if pair in self._models)])

    def _promised(self, fan: Fan, topology: Topology, *, outward: bool) -> list[tuple[str, float]]:
        """The others between whom and the hub there is a way, and what their links alone should give."""
        broken = {(each.source, each.target) for each in self._unreachable}
        found = []
        for other in fan.others:
            pair = (fan.hub, other) if outward else (other, fan.hub)
            if pair not in broken and not self._left_out & set(pair) and (link := topology.link(*pair)):
                found.append((other, link.beta_bytes_per_s))
        return found

    async def _known(self, *, is_sample: bool, rng: np.random.Generator) -> tuple[Topology, tuple[float, float] | None]:
        """The topology without limits, and the errors of what was completed."""
        nodes = [node for node in self._nodes if node.name in self._targets.keys() - self._left_out]
        models = {pair: model for pair, model in self._models.items() if not self._left_out & set(pair)}
        if not nodes or (len(nodes) > 1 and not any(source != target for source, target in models)):
            why = next(iter(self._failures()), "no probe ended in time")
            raise DeployError(f"no node can reach another: {why}")
        topology = Topology.of_links(nodes, models)
        if not is_sample:
            return topology, None
        try:
            completed = await asyncio.to_thread(complete_topology, topology, rng)
        except ValueError as error:
            raise DeployError(f"too few links could be probed: {error}") from error
        num_probed, num_links = sum(one != other for one, other in models), len(nodes) * (len(nodes) - 1)
        self._say(
            f"probed {num_probed} of {num_links} links; the others are taken from {completed.num_groups} groups of "
            f"like nodes, which is wrong by {completed.median_error:.1%} in the median on links held out"
        )
        return completed.topology, (completed.median_error, completed.p90_error)


def _ends(pair: Unreachable) -> tuple[str, str]:
    return pair.source, pair.target


async def _rate(flood: Awaitable[float]) -> float:
    return await flood


async def _stop(prober: Prober) -> None:
    with suppress(MemberFailed, TimeoutError):
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await prober.stop()
    prober.kill()


def _failed(why: str) -> Probed:
    return Probed(number=0, target=Holder("", 0), error=why)
