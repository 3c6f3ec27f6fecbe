"""The survey of a network: rounds of disjoint pairs, both ways, then every node against several at once."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
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
_GRACE_S = 15.0  # for setting a link up, and for its last transfer


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
        await self._probe_inside(names, probe_s)
        await self._probe_pairs(rounds, probe_s)
        limits = await self._measure_nodes(gathered, probe_s * _FLOOD_PART)
        nodes = [replace(node, **limits.get(node.name, {})) for node in self._nodes if node.name in self._targets]
        return await self._conclude(nodes, is_sample=len(rounds) < len(every), rng=rng)

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

    async def _probe_inside(self, names: Sequence[str], probe_s: float) -> None:
        """What is not measured there counts as nothing, so that it may fail."""
        self._say("probing links: inside each node")
        probes = {(name, name): self._probers[name].probe_within(probe_s) for name in names}
        found = await asyncio.gather(*(_answer(probe, probe_s) for probe in probes.values()))
        for pair, probed in zip(probes, found, strict=True):
            self._keep(pair, probed)

    async def _probe_pairs(self, rounds: Sequence[Sequence[Pair]], probe_s: float) -> None:
        for number, pairs in enumerate(rounds, 1):
            self._say(f"probing links: round {number} of {len(rounds)}")
            await asyncio.gather(*(self._probe_both_ways(*pair, probe_s) for pair in pairs))

    async def _probe_both_ways(self, one: str, other: str, probe_s: float) -> None:
        for source, target in ((one, other), (other, one)):
            probe = self._probers[source].probe(self._targets[target], probe_s)
            probed = await _answer(probe, probe_s)
            if not self._keep((source, target), probed):
                self._unreachable.append(Unreachable(source=source, target=target, why=probed.error or "no answer"))

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

    async def _measure_nodes(self, rounds: Sequence[Sequence[Fan]], seconds: float) -> dict[str, dict[str, Any]]:
        """Limits by node and field; none where a node's flows have what their links give."""
        limits: dict[str, dict[str, Any]] = {}
        for number, fans_now in enumerate(rounds, 1):
            self._say(f"probing nodes: round {number} of {len(rounds)}")
            for way in ("egress_bytes_per_s", "ingress_bytes_per_s"):
                outward = way.startswith("egress")
                found = await asyncio.gather(*(self._flood(fan, seconds, outward=outward) for fan in fans_now))
                for fan, rate in zip(fans_now, found, strict=True):
                    if rate is not None:
                        limits.setdefault(fan.hub, {})[way] = rate
        return limits

    async def _flood(self, fan: Fan, seconds: float, *, outward: bool) -> float | None:
        """What the hub has in all, when that is less than its links promise. It is no less than the best of them."""
        ways = [(fan.hub, other) if outward else (other, fan.hub) for other in fan.others]
        promised = [self._models[pair].beta_bytes_per_s for pair in ways if pair in self._models]
        others = [other for other, pair in zip(fan.others, ways, strict=True) if pair in self._models]
        if len(others) < 2:
            return None
        if outward:
            floods = [self._probers[fan.hub].flood([self._targets[other] for other in others], seconds)]
        else:
            floods = [self._probers[other].flood([self._targets[fan.hub]], seconds) for other in others]
        try:
            async with asyncio.timeout(seconds + _GRACE_S):
                rate = fsum(await asyncio.gather(*floods))
        except (MemberFailed, TimeoutError):
            return None
        return max(rate, *promised) if rate < _IS_LIMITED * fsum(promised) else None

    async def _conclude(self, nodes: Sequence[Node], *, is_sample: bool, rng: np.random.Generator) -> Survey:
        unreachable = tuple(sorted(self._unreachable, key=lambda each: (each.source, each.target)))
        if len(nodes) > 1 and not any(source != target for source, target in self._models):
            raise DeployError(f"no node can reach another: {unreachable[0]}")
        topology, errors = Topology.of_links(nodes, self._models), None
        if is_sample:
            try:
                completed = await asyncio.to_thread(complete_topology, topology, rng)
            except ValueError as error:
                raise DeployError(f"too few links could be probed: {error}") from error
            topology, errors = completed.topology, (completed.median_error, completed.p90_error)
            num_probed, num_links = sum(one != other for one, other in self._links), len(nodes) * (len(nodes) - 1)
            self._say(
                f"probed {num_probed} of {num_links} links; the others are taken from {completed.num_groups} groups of "
                f"like nodes, which is wrong by {errors[0]:.1%} in the median on links held out"
            )
        return Survey(topology=topology, links=self._links, unreachable=unreachable, errors=errors)


async def _stop(prober: Prober) -> None:
    with suppress(MemberFailed, TimeoutError):
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await prober.stop()
    prober.kill()


async def _answer(probe: Awaitable[Probed], probe_s: float) -> Probed:
    """Whatever goes wrong is an answer."""
    try:
        async with asyncio.timeout(probe_s + _GRACE_S):
            return await probe
    except MemberFailed as error:
        return _failed(str(error))
    except TimeoutError:
        return _failed(f"no answer within {probe_s + _GRACE_S:.0f} s")


def _failed(why: str) -> Probed:
    return Probed(number=0, target=Holder("", 0), error=why)
