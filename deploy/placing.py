"""Which node every instance belongs to: by measured links before the first one starts, and anew when a node is gone."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

import numpy as np

from cluster.spec.deployment import Deployment
from cluster.spec.problem import format_path
from cluster.spec.quantity import format_bytes
from cluster.topology.topology import Node, Topology
from deploy.durations import format_duration
from deploy.errors import DeployError, MemberFailed
from deploy.events import EventKind, EventLog
from deploy.needs import EXPECTED_PROMPT_TOKENS, alike_pools, needs_of, place_in_yaml, request_bytes
from deploy.planner.assumed import assume
from deploy.planner.placement import NoRoom, PoolNeeds, Seat, Traffic
from deploy.planner.planner import Plan, Planner
from deploy.planner.refill import find_node
from deploy.planner.room import Room
from deploy.planner.transfer_cost import TransferCost
from deploy.probing.survey import Say, Survey, explain
from router.links.live_links import LiveLinks

PLACEMENT = "placement"


class Network(Protocol):
    """The nodes that there are."""

    async def nodes(self) -> list[Node]:
        """Those that are alive, with what is free there for this deployment, its own share included. MemberFailed."""
        ...

    async def survey(self, nodes: Sequence[Node], budget_s: float, say: Say) -> Survey:
        """DeployError when nothing could be measured."""
        ...


class Placing:
    """With `spread`, or on one node, it says nothing of any instance: Ray chooses.

    `topology`: as it was probed. `seats`: of the instances that have their places, by name.
    """

    def __init__(self, deployment: Deployment, network: Network, log: EventLog) -> None:
        self._deployment, self._network, self._log = deployment, network, log
        self._unreachable: tuple[tuple[str, str], ...] = ()
        self.topology: Topology | None = None
        self.seats: dict[str, Seat] = {}
        self._choosing = asyncio.Lock()
        self._needs: list[PoolNeeds] = []  # these two are read before the first plan: the checkpoint may go later
        self._traffic = Traffic(request_bytes=0)

    async def begin(self) -> None:
        """DeployError: the deployment fits nowhere, or its pools could not reach each other."""
        placement = self._deployment.spec.placement
        nodes = await self._network.nodes()
        if placement.policy == "spread" or len(nodes) < 2:
            return
        self._needs = needs_of(self._deployment)
        self._traffic = Traffic(request_bytes=request_bytes(self._deployment, EXPECTED_PROMPT_TOKENS))
        with self._in_yaml():
            Room(self._needs, nodes).check()  # before it takes time to probe
        if any(each.num_gpus for each in self._needs) and any(node.gpu_memory_bytes is None for node in nodes):
            self._say("GPU memory is not checked: Ray does not say how much its nodes have")
        survey = await self._network.survey(nodes, placement.probe_budget_s, self._say)
        for line in explain(survey.unreachable):
            self._say(line)
        self.topology = survey.topology
        self._unreachable = tuple((each.source, each.target) for each in survey.unreachable)
        plan = await asyncio.to_thread(self._plan, survey.topology.nodes)
        self.seats = {
            placed.instance: Seat(instance=placed.instance, pool=placed.instance.rsplit("-", 1)[0], node=placed.node)
            for placed in plan.chosen.instances
        }
        self._check_reachable()
        self._tell(plan)

    async def place(self, instance: str, reserve: Callable[[str], Awaitable[None]]) -> None:
        """Reserves what its next life needs: on its node, or when that is gone or has no room, on another.

        Nothing for an instance that Ray places. MemberFailed: there is no room anywhere.
        """
        if instance not in self.seats:
            return
        home = self.seats[instance].node
        why = f"{home} is gone"
        if home in {node.name for node in await self._network.nodes()}:
            try:
                await reserve(home)
                return
            except MemberFailed as error:
                why = f"{home} has no room ({error})"
        async with self._choosing:  # one after the other: each knows what the one before has chosen
            found = await self._elsewhere(instance)
            if found is None:
                raise MemberFailed(f"its node {why}, and no other has room for it")
            await reserve(found)
            self._log.add(EventKind.PROGRESS, instance, f"placed on {found}: {why}")
            self.moved(instance, found)

    async def nodes(self) -> list[Node]:
        """Those that are alive, but for those where no prober started and no instance is. MemberFailed."""
        seated = {seat.node for seat in self.seats.values()}
        return [node for node in await self._network.nodes() if node.name in seated or not self._is_silent(node.name)]

    def _is_silent(self, node: str) -> bool:
        return (node, node) in self._unreachable

    def moved(self, instance: str, node: str) -> None:
        self.seats[instance] = replace(self.seats[instance], node=node)

    def flipped(self, instance: str, pool: str) -> None:
        self.seats[instance] = replace(self.seats[instance], pool=pool)

    def has_role(self, instance: str, role: str) -> None:
        """It sits for a pool of that role: for one that its own is like, if it can."""
        roles = {pool.name: pool.role for pool in self._deployment.spec.pools}
        seat = self.seats.get(instance)
        if seat is None or roles[seat.pool] == role:
            return
        alike = {name for group in alike_pools(self._deployment) if seat.pool in group for name in group}
        others = sorted((pool for pool in roles if roles[pool] == role), key=lambda pool: pool not in alike)
        if others:
            self.flipped(instance, others[0])

    def assumed(self, nodes: Sequence[Node], live: LiveLinks | None = None) -> Topology:
        """Of these nodes: by what is known now, else by what was probed before the first instance started.

        What could not be reached then counts so until something else is known. ValueError: nothing is known of any.
        """
        now = live.topology if live else None
        known = [topology for topology in (now, self.topology) if topology is not None]
        unreachable = {pair for pair in self._unreachable if now is None or not _has_link(now, *pair)}
        return assume(nodes, known, unreachable | (live.broken if live else frozenset()))

    def planner(self, topology: Topology) -> Planner:
        """For as many of each pool as there are now: operators may have flipped some."""
        numbers = Counter(seat.pool for seat in self.seats.values())
        needs = [replace(each, num_instances=numbers[each.name]) for each in self._needs if numbers[each.name]]
        return Planner(needs or self._needs, topology, self._traffic, np.random.default_rng(0))

    def _plan(self, nodes: Sequence[Node]) -> Plan:
        with self._in_yaml():
            return self.planner(self.assumed(nodes)).plan(with_worst=False)

    @contextmanager
    def _in_yaml(self) -> Iterator[None]:
        """What finds no room is named with its place there."""
        try:
            yield
        except NoRoom as error:
            path = format_path(place_in_yaml(self._deployment, error.pool, error.field))
            raise DeployError(f"{path}: {error} (pool {error.pool})") from error

    async def _elsewhere(self, instance: str) -> str | None:
        """Where KV is soonest; a node where no prober started, only when no other has room."""
        nodes, seat = await self._network.nodes(), self.seats[instance]
        alive = {node.name for node in nodes}
        others = [other for other in self.seats.values() if other is not seat and other.node in alive]
        for choice in (alive - {node for node in alive if self._is_silent(node)}, alive):
            found = await asyncio.to_thread(self._find, seat.pool, nodes, others, choice - {seat.node})
            if found is not None:
                return found
        return None

    def _find(self, pool: str, nodes: Sequence[Node], others: Sequence[Seat], choice: Set[str]) -> str | None:
        try:
            topology = self.assumed(nodes)
        except ValueError:  # these nodes have all come since: one is as good as another
            topology = Topology(nodes, np.zeros((len(nodes), len(nodes))), np.ones((len(nodes), len(nodes))))
        cost = TransferCost(topology, self._needs, self._traffic)
        return find_node(cost, Room(self._needs, nodes), others, pool, choice)

    def _check_reachable(self) -> None:
        """Who could give its requests to nobody, or be given none, would only look as if it served."""
        roles = {pool.name: pool.role for pool in self._deployment.spec.pools}
        for seat in self.seats.values():
            role = roles[seat.pool]
            wanted = "decode" if role == "prefill" else "prefill"
            others = {other.node for other in self.seats.values() if roles[other.pool] in (wanted, "mixed")}
            ways = {(seat.node, other) if role == "prefill" else (other, seat.node) for other in others}
            if role != "mixed" and ways <= set(self._unreachable):
                raise DeployError(f"{seat.instance} would be on {seat.node}, and no {wanted} instance within reach")

    def _tell(self, plan: Plan) -> None:
        for placed in plan.chosen.instances:
            self._log.add(EventKind.PROGRESS, placed.instance, f"placed on {placed.node}")
        size = format_bytes(self._traffic.request_bytes)
        text = f"KV of {EXPECTED_PROMPT_TOKENS} tokens ({size}) should take {format_duration(plan.chosen.cost_s)}"
        if plan.label_free:
            text += f" from prefill to decode; {format_duration(plan.label_free.cost_s)} not knowing links"
        self._log.add(EventKind.PLACED, PLACEMENT, text)

    def _say(self, text: str) -> None:
        self._log.add(EventKind.PROGRESS, PLACEMENT, text)


def _has_link(topology: Topology, source: str, target: str) -> bool:
    names = {node.name for node in topology.nodes}
    return {source, target} <= names and topology.link(source, target) is not None
