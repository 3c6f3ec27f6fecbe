"""Keeps what runs equal to what was asked for: starts the router and the instances, and makes again what has died.

The reconcile loop starts lives; a life is one task: create, start, RUNNING, until_gone, GONE, which wakes the loop.
Where an instance runs says `placing.py`; that it should run elsewhere, `replacing.py`.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from cluster.handshake import draw_secret
from cluster.instance.config import InstanceInfo
from cluster.role import InstanceRole
from cluster.spec.deployment import Deployment
from cluster.topology.topology import Topology
from deploy.errors import DeployError, MemberFailed, describe
from deploy.events import Event, EventKind, EventLog
from deploy.member import Cluster, Member
from deploy.placing import Placing
from deploy.reconcile import Life, Observed, gone, next_retry_s, running, started, to_create
from deploy.replacing import Replacing
from deploy.target import instance_targets, router_config, same_ports, with_weights_peers
from router.config import RouterInfo
from router.links.live_links import LiveLinks

ROUTER = "router"
_PROGRESS_INTERVAL_S = 0.5
_STOP_TIMEOUT_S = 2.0
_CALL_TIMEOUT_S = 10.0
_DRAIN_TIMEOUT_S = 600.0
_MOVE_TIMEOUT_S = 300.0


T = TypeVar("T")

log = logging.getLogger(__name__)


class Controller:
    """In one event loop. `draw_term` gives each life of the router a greater term.

    The cluster's secret is drawn here and lives as long as this does; only the members are told it.
    """

    def __init__(
        self,
        deployment: Deployment,
        cluster: Cluster,
        *,
        draw_term: Callable[[], int] = time.time_ns,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._deployment, self._cluster = deployment, cluster
        self._draw_term, self._clock, self._sleep = draw_term, clock, sleep
        self._term = 0
        self._secret = draw_secret()
        self._targets = {target.name: target for target in instance_targets(deployment, self._secret)}
        self._observed: dict[str, Observed] = {}
        self._members: dict[str, Member] = {}
        self._infos: dict[str, InstanceInfo] = {}
        self._leaving: dict[str, str] = {}
        self._changed = asyncio.Event()
        self._telling = asyncio.Lock()
        self._first_failure: MemberFailed | None = None
        self._router_info: RouterInfo | None = None
        self._log = EventLog()
        self._placing = Placing(deployment, cluster, self._log)
        self._replacing = Replacing(deployment, self._placing, self, self._log, clock=clock, sleep=sleep)
        self._tasks: set[asyncio.Task[None]] = set()

    def addresses(self) -> RouterInfo:
        """Of the router as it runs now."""
        assert self._router_info is not None, "not up yet"
        return self._router_info

    async def up(self) -> None:
        """Everything placed and started, in parallel; MemberFailed, with nothing left running, when one cannot be.

        Cancelled when it is stopped meanwhile.
        """
        this = asyncio.current_task()
        assert this is not None
        self._tasks.add(this)
        try:
            await self._begin()
        except Exception as error:
            if not isinstance(error, DeployError):
                log.exception("the deployment could not be brought up")
            await self._end(EventKind.FAILED, describe(error))
            raise MemberFailed(describe(error)) from error
        finally:
            self._tasks.discard(this)
        self._spawn(self._replacing.run())

    async def stop(self) -> None:
        await self._end(EventKind.STOPPED, "")

    async def events(self, number: int) -> list[Event]:
        """Those after the first `number`; waits until there are some."""
        return await self._log.after(number)

    async def topology(self) -> Topology:
        """The nodes, with what they have for this deployment, and links as they are now. MemberFailed."""
        live = await self.live_links() if self.is_complete() else None
        try:
            return self._placing.assumed(await self._placing.nodes(), live)
        except ValueError as error:
            raise MemberFailed(str(error)) from error

    async def _begin(self) -> None:
        await self._placing.begin()
        self._spawn(self._reconcile())
        while not (self.is_complete() or self._first_failure):
            await self._next_change()
        if self._first_failure:
            raise self._first_failure
        await self._tell_router()
        router = self.addresses()
        self._log.add(EventKind.READY, text=f"gRPC {router.grpc_address}, HTTP http://{router.http_address}")

    # For Replacing

    def is_complete(self) -> bool:
        """All that should run does."""
        names = {ROUTER, *self._targets}
        return all(name in self._observed and self._observed[name].life is Life.RUNNING for name in names)

    async def live_links(self) -> LiveLinks | None:
        """What the router believes of links now; MemberFailed."""
        live = self._members[ROUTER].live_links()
        return await _within(_CALL_TIMEOUT_S, live, "the router said nothing of links")

    async def learn_roles(self) -> None:
        """Operators flip too: seats and next lives go by what the router says. MemberFailed."""
        roles = await _within(_CALL_TIMEOUT_S, self._members[ROUTER].roles(), "the router said nothing of roles")
        for instance, role in roles.items():
            if instance in self._targets:
                self._become(instance, role)

    async def move(self, instance: str, node: str) -> None:
        """Drained, ended, and alive again on that node; MemberFailed."""
        target = self._targets[instance]
        await self._cluster.reserve(target, node)  # before anybody has to leave for it
        try:
            await self._drain(instance)
        except MemberFailed:
            await self._undo_drain(instance)
            self._cluster.release(target, node)
            raise
        try:
            self._placing.moved(instance, node)
            self._leaving[instance] = f"moves to {node}"
            await _stop(self._members[instance])
            await _within(_CALL_TIMEOUT_S, self._until(instance, runs=False), f"{instance} did not end")
            await _within(_MOVE_TIMEOUT_S, self._until(instance, runs=True), f"{instance} did not run again")
        finally:
            await self._undo_drain(instance)

    async def _drain(self, instance: str) -> None:
        drain = self._members[ROUTER].drain(instance)
        await _within(_DRAIN_TIMEOUT_S, drain, f"{instance} was not empty")

    async def flip(self, instance: str, pool: str) -> None:
        """One of that pool from now on, in this life and the next ones; MemberFailed, and it is what it was."""
        role = InstanceRole(next(each.role for each in self._deployment.spec.pools if each.name == pool))
        flip = self._members[ROUTER].flip(instance, role.value)
        try:
            await _within(_DRAIN_TIMEOUT_S, flip, f"{instance} was not empty")
        except MemberFailed:
            await self._undo_drain(instance)
            if not await self._has_become(instance, role):
                raise
        self._become(instance, role)
        self._placing.flipped(instance, pool)

    async def _has_become(self, instance: str, role: InstanceRole) -> bool:
        """After all: a router that waited in vain for its answer tells it again."""
        with contextlib.suppress(MemberFailed):
            await self.learn_roles()
        return self._targets[instance].config.role is role

    def _become(self, instance: str, role: InstanceRole) -> None:
        config = replace(self._targets[instance].config, role=role)
        self._targets[instance] = replace(self._targets[instance], config=config)
        self._placing.has_role(instance, role.value)

    async def _undo_drain(self, instance: str) -> None:
        if ROUTER not in self._members:  # all of it is being stopped
            return
        with contextlib.suppress(MemberFailed):
            await _within(_CALL_TIMEOUT_S, self._members[ROUTER].undo_drain(instance), "the router did not answer")

    async def _until(self, instance: str, *, runs: bool) -> None:
        while (self._observed[instance].life is Life.RUNNING) is not runs:
            await self._next_change()

    # Lives

    async def _reconcile(self) -> None:
        while True:
            for name in to_create((ROUTER, *self._targets), self._observed, self._clock()):
                self._observe(name, started(self._observed.get(name), self._clock()))
                self._spawn(self._live(name))
            await self._next_change(next_retry_s(self._observed))

    async def _live(self, name: str) -> None:
        member: Member | None = None
        try:
            await self._place(name)
            member = self._members[name] = self._create(name)
            self._log.add(EventKind.STARTING, name)
            await self._start(name, member)
            await self._tell_router()
            await member.until_gone()
        except Exception as error:
            if not isinstance(error, MemberFailed):
                log.exception("a life of %s ended in what nobody foresaw", name)
            if member is not None:
                member.kill()
            await self._on_gone(name, describe(error))

    async def _place(self, name: str) -> None:
        if name != ROUTER:
            await self._placing.place(name, lambda node: self._cluster.reserve(self._targets[name], node))

    def _create(self, name: str) -> Member:
        if name == ROUTER:
            self._term = max(self._term + 1, self._draw_term())  # clocks may step back, terms may not
            config = router_config(self._deployment, self._secret, self._term)
            config = replace(config, topology=self._placing.topology)
            return self._cluster.create_router(same_ports(config, self._router_info) if self._router_info else config)
        target = self._targets[name]
        if self._deployment.spec.model.weights_from == "peer":
            target = with_weights_peers(target, self._infos.values())
        return self._cluster.create_instance(target)

    async def _start(self, name: str, member: Member) -> None:
        progress = self._spawn(self._follow(name, member))
        try:
            info = await member.start()
        finally:
            progress.cancel()
        if isinstance(info, RouterInfo):
            self._router_info = info
        else:
            self._infos[name] = info
        self._observe(name, running(self._observed[name], self._clock()))
        seat = self._placing.seats.get(name)
        self._log.add(EventKind.RUNNING, name, f"on {seat.node}" if seat else "")

    async def _follow(self, name: str, member: Member) -> None:
        """Shows what a member says of its start, until it is cancelled; the start itself tells of failures."""
        shown = {EventKind.STARTING.value, EventKind.RUNNING.value}  # what the life itself says
        with contextlib.suppress(MemberFailed):
            while True:
                text = await member.progress()
                if text not in shown:
                    self._log.add(EventKind.PROGRESS, name, text)
                shown.add(text)
                await self._sleep(_PROGRESS_INTERVAL_S)

    async def _on_gone(self, name: str, why: str) -> None:
        self._infos.pop(name, None)
        self._first_failure = self._first_failure or MemberFailed(f"{name}: {why}")
        why = self._leaving.pop(name, why)
        self._observe(name, gone(self._observed[name], self._clock()))
        delay_s = self._observed[name].retry_at_s - self._clock()
        self._log.add(EventKind.GONE, name, f"{why}; made again in {delay_s:.1f} s")
        await self._tell_router()

    async def _tell_router(self) -> None:
        """Which instances there are now; a router yet to come is told later. One call at a time: none overtakes."""
        async with self._telling:
            if ROUTER in self._observed and self._observed[ROUTER].life is Life.RUNNING:
                with contextlib.suppress(MemberFailed):
                    await self._members[ROUTER].set_instances(list(self._infos.values()))

    def _observe(self, name: str, observed: Observed) -> None:
        self._observed[name] = observed
        self._changed.set()
        self._changed = asyncio.Event()

    async def _next_change(self, until_s: float | None = None) -> None:
        """Until something is observed, or `until_s` by the clock."""
        waits: list[Coroutine[Any, Any, Any]] = [self._changed.wait()]
        if until_s is not None:
            waits.append(self._wait(until_s - self._clock()))
        tasks = [asyncio.ensure_future(wait) for wait in waits]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def _wait(self, delay_s: float) -> None:
        await self._sleep(max(0.0, delay_s))

    async def _end(self, kind: EventKind, text: str) -> None:
        """The router first, so that clients are told; what does not end in time is killed."""
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()
        if router := self._members.pop(ROUTER, None):
            await _stop(router)
        await asyncio.gather(*map(_stop, self._members.values()))
        self._members.clear()
        self._log.add(kind, text=text)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("the controller lost a task", exc_info=error)


async def _within(timeout_s: float, work: Awaitable[T], otherwise: str) -> T:
    try:
        async with asyncio.timeout(timeout_s):
            return await work
    except TimeoutError:
        raise MemberFailed(f"{otherwise} within {timeout_s:.0f} s") from None


async def _stop(member: Member) -> None:
    try:
        with contextlib.suppress(MemberFailed, TimeoutError):
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await member.stop()
    finally:
        member.kill()
