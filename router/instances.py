"""The instances of this router: connected to, heard, and asked for what an earlier life left with them.

InstanceConnection -> ConnectionEvents -> the ledger's events -> Requests, which carries out what it answers
"""

import asyncio
from collections.abc import Iterable

from cluster.instance.config import InstanceInfo
from cluster.messages import (
    Activated,
    DispatchRefused,
    FrontMessage,
    GrantRefused,
    Held,
    Holder,
    InstanceMessage,
    PassedOn,
    Probed,
    StepUpdate,
    Transfers,
)
from cluster.snapshot import InstanceSnapshot
from router.adoption import Adoption
from router.config import RouterConfig
from router.connection import InstanceConnection
from router.ledger import Failure, Ledger, Place
from router.observer import RouterObserver
from router.outage import Outage
from router.requests import Requests
from router.scheduler import Member, Scheduler


class Instances:
    """Implements `ConnectionEvents`. `has_adopted`: every instance has said what it holds; dispatching may begin."""

    def __init__(
        self,
        config: RouterConfig,
        front: str,
        ledger: Ledger,
        scheduler: Scheduler,
        observers: list[RouterObserver],
        requests: Requests,
    ) -> None:
        self._config = config
        self._front = front
        self._ledger = ledger
        self._scheduler = scheduler
        self._observers = observers
        self._requests = requests
        self.connections: dict[Holder, InstanceConnection] = {}
        self._joining: dict[Holder, Member] = {}
        self.adoption = Adoption()
        self.has_adopted = asyncio.Event()
        self.outage = Outage(config.no_instance_timeout_s, self._refuse_queued)
        self.readiness_changed = asyncio.Event()
        self._is_closed = False

    def tell(self, holder: Holder, message: FrontMessage) -> None:
        if connection := self.connections.get(holder):
            connection.send(message)

    async def set_instances(self, infos: Iterable[InstanceInfo]) -> None:
        """These are all there are: connects to the new ones, lets go of those that are not among them."""
        if self._is_closed:
            return
        wanted = {Holder(info.name, info.incarnation): info for info in infos}
        gone = [self.connections.pop(holder) for holder in list(self.connections) if holder not in wanted]
        for connection in gone:
            self._scheduler.leave(connection.holder)  # all of them first: what one had must not go to another
        for connection in gone:
            self.adoption.exclude(connection.holder)
            self.on_lost(connection.holder, "it was taken out")
        for holder, info in wanted.items():
            if holder not in self.connections:
                self.connections[holder] = InstanceConnection(
                    info,
                    self._front,
                    self._config.term,
                    self,
                    secret=self._config.secret,
                    suspect_after_s=self._config.suspect_after_s,
                )
        self._begin_adoption()
        # Nothing waits before this: the next call may come meanwhile.
        await asyncio.gather(*(connection.close() for connection in gone))

    async def close(self) -> None:
        self._is_closed = True
        closing = [connection.close() for connection in self.connections.values()]
        self.connections.clear()
        await asyncio.gather(*closing)
        self.outage.close()

    # What an earlier life left

    def _begin_adoption(self) -> None:
        if not (self.has_adopted.is_set() or self.adoption.has_begun):
            self.adoption.expect(self.connections)
            asyncio.get_running_loop().call_later(self._config.suspect_after_s, self._stop_waiting)
        self._adopt_if_all_are_here()

    def _stop_waiting(self) -> None:
        self.adoption.exclude_silent()
        self._adopt_if_all_are_here()

    def _adopt_if_all_are_here(self) -> None:
        """Once; dispatching and attaching begin then."""
        if self._is_closed or self.has_adopted.is_set() or not self.adoption.is_over:
            return
        self.has_adopted.set()
        self._requests.is_dispatching = True
        self._requests.carry_out(self._ledger.adopt(self.adoption.reports, self._front))
        for holder in self.adoption.reports:
            if self._scheduler.member(holder) is None:
                self._requests.carry_out(
                    self._ledger.on_instance_lost(holder, "lost before its requests were taken over")
                )
        for holder, message in self.adoption.early:
            self.on_message(holder, message)
        for request_id in self.adoption.aborted:
            self._requests.fail(request_id, Failure.ABORTED, "aborted")
        self.adoption = Adoption()
        self.watch_roles()
        self.readiness_changed.set()
        self._requests.dispatch()

    # ConnectionEvents

    def on_joined(self, info: InstanceInfo) -> None:
        place = Place(Holder(info.name, info.incarnation), info.address, info.link_address)
        member = Member(
            place=place,
            role=info.role,
            num_blocks=info.num_blocks,
            block_size=info.block_size,
            max_num_seqs=info.max_num_seqs,
            saturation_tokens=info.saturation_tokens,
            kv_layout=info.kv_layout,
            caches_prefixes=info.caches_prefixes,
            node=info.node,
            block_bytes=info.block_bytes,
        )
        self._joining[member.place.holder] = member

    def on_holdings(self, holder: Holder, held: tuple[Held, ...]) -> None:
        """It may be dispatched to from now on."""
        if member := self._joining.pop(holder, None):
            self._scheduler.join(member)
            self.readiness_changed.set()
            for observer in self._observers:
                observer.on_joined(member)
            self.watch_roles()
        if self.has_adopted.is_set():
            self._requests.carry_out(self._ledger.on_holdings(holder, held))
            self._requests.dispatch()
        else:
            self.adoption.report(holder, held)
            self._adopt_if_all_are_here()

    def on_snapshot(self, snapshot: InstanceSnapshot) -> None:
        if member := self._scheduler.member(snapshot.instance):
            member.observe(snapshot)
            self.watch_roles()
            self._requests.dispatch()
            for observer in self._observers:
                observer.on_snapshot(member)

    def on_lost(self, holder: Holder, reason: str) -> None:
        self._scheduler.leave(holder)
        self._joining.pop(holder, None)
        self.readiness_changed.set()
        self._requests.carry_out(self._ledger.on_instance_lost(holder, reason))
        self._requests.dispatch()
        for observer in self._observers:
            observer.on_lost(holder)
        self.watch_roles()

    def watch_roles(self) -> None:
        self.outage.watch(self._scheduler.missing_role() is not None)

    def _refuse_queued(self) -> None:
        """What waits for a kind of instance that has not come back ends; what comes new is refused until it has."""
        if missing := self._scheduler.missing_role():
            for request_id in self._scheduler.queued:
                reason = f"no {missing} instance has come back"
                self._requests.fail(request_id, Failure.NO_INSTANCE, reason)

    def on_message(self, holder: Holder, message: InstanceMessage) -> None:
        if isinstance(message, Probed | Transfers):
            for observer in self._observers:
                observer.on_measured(holder, message)
            return
        if not self.has_adopted.is_set():
            self.adoption.early.append((holder, message))
            return
        match message:
            case StepUpdate():
                self._on_step(holder, message)
            case Activated():
                self._requests.carry_out(self._ledger.on_activated(holder, message))
            case GrantRefused():
                self._requests.carry_out(self._ledger.on_grant_refused(message))
            case PassedOn():
                self._requests.carry_out(self._ledger.on_passed_on(holder, message))
            case DispatchRefused():
                self._requests.carry_out(self._ledger.on_dispatch_refused(holder, message))
        self._requests.dispatch()

    def _on_step(self, holder: Holder, message: StepUpdate) -> None:
        for update in message.updates:
            self._requests.carry_out(self._ledger.on_tokens(holder, update))
        if member := self._scheduler.member(holder):
            member.observe_load(message.num_waiting_tokens, message.num_dispatches_seen)
