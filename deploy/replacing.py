"""Looks now and then whether what runs should run elsewhere, as the links are now; says so, or carries it out.

One step at a time, each by what serves requests anyway: a drain, a new life on another node, a flip.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from cluster.spec.deployment import Deployment
from cluster.topology.topology import Topology
from deploy.durations import format_duration
from deploy.errors import MemberFailed, describe
from deploy.events import EventKind, EventLog
from deploy.needs import alike_pools
from deploy.placing import PLACEMENT, Placing
from deploy.planner.drift import Drift, DriftConfig
from deploy.planner.steps import Flip, Move, Route, Step, find_route
from router.links.live_links import LiveLinks

log = logging.getLogger(__name__)

_PAUSE = 20.0  # times what a check took: with a thousand nodes it is work


class Hands(Protocol):
    """What the controller does with what runs. MemberFailed: it could not, and everything serves on as it can."""

    def is_complete(self) -> bool:
        """Whether all that should run does."""
        ...

    async def live_links(self) -> LiveLinks | None: ...

    async def learn_roles(self) -> None:
        """What operators have flipped is in the seats then."""
        ...

    async def move(self, instance: str, node: str) -> None:
        """Returns when its next life runs there."""
        ...

    async def flip(self, instance: str, pool: str) -> None:
        """It is one of that pool from now on, where it is."""
        ...


class Replacing:
    def __init__(
        self,
        deployment: Deployment,
        placing: Placing,
        hands: Hands,
        log: EventLog,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._placement = deployment.spec.placement
        self._alike = alike_pools(deployment)
        self._placing, self._hands, self._log = placing, hands, log
        self._clock, self._sleep = clock, sleep
        self._drift = Drift(DriftConfig(margin=self._placement.margin))
        self._said = ""
        self._took_s = 0.0
        self._is_under_way = False
        self._failed: Step | None = None  # the step that was tried last
        self._num_failures = self._num_left_alone = 0  # in a row; checks
        self._half_done: tuple[str, str] | None = None  # who is to be one of which pool again

    async def run(self) -> None:
        """Until it is cancelled."""
        while self._placement.replace != "off" and self._placing.seats:
            await self._sleep(max(self._placement.check_interval_s, _PAUSE * self._took_s))
            if self._hands.is_complete():
                await self._check_safely()

    async def _check_safely(self) -> None:
        """Whatever one check ends in, there is a next one."""
        try:
            await self.check()
        except Exception as error:
            log.exception("a check of the placement ended in what nobody foresaw")
            self._say_once(f"the placement could not be checked: {describe(error)}")

    async def check(self) -> None:
        """What cannot be known now is left to the next time."""
        try:
            await self._hands.learn_roles()
            if self._half_done is not None:
                await self._flip_back(*self._half_done)
            live = await self._hands.live_links()
            nodes = await self._placing.nodes()
        except MemberFailed:
            return
        began_s = self._clock()
        try:
            topology = self._placing.assumed(nodes, live)
            current_s, best_s, route = await asyncio.to_thread(self._look, topology)
        except ValueError:  # a node is going, and its instances are about to come back elsewhere
            return
        self._took_s = self._clock() - began_s
        if not self._drift.check(current_s, best_s):
            self._said, self._is_under_way = "", False
            return
        self._say_once(_describe(current_s, best_s, route))
        if self._placement.replace == "apply" and self._is_worth_it(current_s, route) and self._may_try(route.steps[0]):
            await self._begin(route)

    def _look(self, topology: Topology) -> tuple[float, float, Route]:
        planner = self._placing.planner(topology)
        seats = list(self._placing.seats.values())
        current_s = planner.cost.mean_s(planner.room.counts(seats))
        best_s = min(current_s, planner.plan(with_worst=False).chosen.cost_s)
        return current_s, best_s, find_route(planner.cost, planner.room, seats, best_s, self._alike)

    def _is_worth_it(self, current_s: float, route: Route) -> bool:
        """The rest of a way that was worth it may save less: half of the margin, as long as links stay drifted."""
        margin = self._placement.margin / (2 if self._is_under_way else 1)
        return bool(route.steps) and route.mean_s <= current_s * (1.0 - margin)

    def _may_try(self, step: Step) -> bool:
        """What failed is left alone for twice as many checks each time, until something else comes first."""
        if step != self._failed:
            self._failed, self._num_failures, self._num_left_alone = None, 0, 0
        self._num_left_alone = max(0, self._num_left_alone - 1)
        return self._num_left_alone == 0

    async def _begin(self, route: Route) -> None:
        """Its first step; the next check looks for the next one, by the links as they are then."""
        step = route.steps[0]
        try:
            await self._take(step)
        except MemberFailed as error:
            self._failed, self._num_failures = step, self._num_failures + 1
            self._num_left_alone = 2**self._num_failures
            self._say(f"{_text(step)} did not come off: {error}")
            return
        self._said, self._is_under_way = "", True
        if len(route.steps) == 1:
            self._say(f"done; {format_duration(route.mean_s)} predicted from prefill to decode")
        else:
            self._say(f"done: {_text(step)}")

    async def _take(self, step: Step) -> None:
        if isinstance(step, Move):
            await self._hands.move(step.instance, step.target)
            return
        pools = {instance: self._placing.seats[instance].pool for instance in (step.first, step.second)}
        await self._hands.flip(step.first, pools[step.second])
        try:
            await self._hands.flip(step.second, pools[step.first])
        except MemberFailed:
            await self._flip_back(step.first, pools[step.first])
            raise

    async def _flip_back(self, instance: str, pool: str) -> None:
        """Half an exchange would leave one role more and the other less than was asked for."""
        self._half_done = (instance, pool)
        try:
            await self._hands.flip(instance, pool)
            self._half_done = None
        except MemberFailed as error:
            self._say_once(f"{instance} is not one of {pool} again yet: {error}")

    def _say_once(self, text: str) -> None:
        """The times change a little from check to check."""
        steps = text.rpartition(":")[2]
        if steps != self._said:
            self._said = steps
            self._say(text)

    def _say(self, text: str) -> None:
        self._log.add(EventKind.PROGRESS, PLACEMENT, text)


def _describe(current_s: float, best_s: float, route: Route) -> str:
    now = f"links have changed: KV takes {format_duration(current_s)} from prefill to decode"
    if not route.steps:
        why = f" ({' and '.join(route.bound)} cannot be spared)" if route.bound else ""
        return f"{now}, {format_duration(best_s)} in another placement: no step gets there{why}"
    return f"{now}, and would take {format_duration(route.mean_s)}: {', '.join(map(_text, route.steps))}"


def _text(step: Step) -> str:
    match step:
        case Flip():
            return f"{step.first} and {step.second} exchange their roles"
        case Move():
            return f"{step.instance} moves from {step.source} to {step.target}"
