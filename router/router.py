"""The global router: takes requests in, decides where they run, and relays what they say.

client -> front -> submit -> ledger, queue -> scheduler -> Dispatch -> instances -> TokenUpdate -> ledger -> stream
All of it runs in one event loop; the ledger and the scheduler decide, `requests.py` and `instances.py` carry out.
"""

import asyncio
from collections.abc import Callable, Iterable

from cluster.instance.config import InstanceInfo
from cluster.messages import FrontMessage, Holder
from cluster.pb import baton_pb2
from router.backend import AdmittedRequest, AttachedRequest
from router.broken_links import BrokenLinks
from router.config import RouterConfig
from router.errors import CannotResume, DuplicateRequest, NoInstance, QueueFull, UnknownRequest
from router.instances import Instances
from router.ledger import Failure, Ledger, Place
from router.links.links import Links
from router.observer import RouterObserver
from router.operations import Operations
from router.policies import DISPATCH_POLICIES
from router.requests import Requests
from router.rescheduler import Rescheduler
from router.scheduler import Scheduler
from router.status import cluster_status
from router.stream_store import Timer
from router.streams import StreamReader
from router.timeline import Timeline

# Told to a client that finds the queue full: about the time in which a queue of short requests moves on.
_RETRY_AFTER_S = 1.0


class Router:
    """Implements `Backend` and, for operators, `Hands`."""

    def __init__(self, config: RouterConfig) -> None:
        self.config = config
        self.front = f"{config.name}/{config.term}"
        self._ledger = Ledger(config.term)
        self._scheduler = Scheduler(DISPATCH_POLICIES[config.policy](), config.max_queued_requests)
        self._observers: list[RouterObserver] = []
        parts = (config, self.front, self._ledger, self._scheduler, self._observers)
        self.requests = Requests(*parts, self.tell)
        self.instances = Instances(*parts, self.requests)
        self.timeline = Timeline(self._ledger)
        self.rescheduler = Rescheduler(config.rescheduling, self._ledger, self._scheduler, self.hand_over)
        self.operations = Operations(self._ledger, self._scheduler, self, self.rescheduler)
        self.links = Links(self._ledger, self.tell, topology=config.topology)
        self._scheduler.forecast = self.links.forecast
        # The links first: who acts on a note, or on one who has joined, is to know what it means for them.
        self._observers += (self.links, BrokenLinks(self._scheduler, retry_after_s=config.retry_link_after_s))
        self._observers += (self.timeline, self.rescheduler, self.operations)
        self._is_closing = False

    def observe(self, observer: RouterObserver) -> None:
        self._observers.append(observer)

    async def set_instances(self, infos: Iterable[InstanceInfo]) -> None:
        """These are all there are."""
        await self.instances.set_instances(infos)

    @property
    def readiness_changed(self) -> asyncio.Event:
        return self.instances.readiness_changed

    @property
    def is_ready(self) -> bool:
        """Whether requests can be served: every role has an instance that answers."""
        return self.instances.has_adopted.is_set() and self._scheduler.missing_role() is None

    async def close(self) -> None:
        self._is_closing = True
        self.requests.is_dispatching = False
        for entry in list(self._ledger):
            self.requests.fail(entry.request_id, Failure.NO_INSTANCE, "the router is stopping")
        await self.instances.close()
        self.requests.streams.close()

    # Backend

    def submit(self, request: AdmittedRequest) -> StreamReader:
        if self._is_closing:
            raise NoInstance("the router is stopping")
        missing = self._scheduler.missing_role()
        if missing and self.instances.outage.is_long:
            raise NoInstance(f"no {missing} instance is there")
        if self._scheduler.is_full:
            raise QueueFull(_RETRY_AFTER_S)
        if request.request_id in self._ledger:
            raise DuplicateRequest(request.request_id)
        self.instances.adoption.aborted.discard(request.request_id)  # that was an earlier one with this id
        self.instances.outage.watch(missing is not None)
        return self.requests.admit(request)

    async def attach(self, request_id: str, is_meant: Callable[[AdmittedRequest], bool]) -> AttachedRequest:
        await self._until_adopted()
        stream = self.requests.streams.find(request_id)
        if stream is None:
            raise UnknownRequest(request_id)
        if not is_meant(stream.request):
            if stream.is_over:
                raise UnknownRequest(request_id)
            raise CannotResume(f"another request runs under the id {request_id!r}")
        stream.is_resumable = True
        self.requests.streams.cancel(request_id, Timer.GRACE)
        return AttachedRequest(stream.request, stream.read())

    async def _until_adopted(self) -> None:
        try:
            await asyncio.wait_for(self.instances.has_adopted.wait(), self.config.no_instance_timeout_s)
        except TimeoutError:
            raise NoInstance("the router has not been told yet which instances there are") from None

    def abort(self, request_id: str) -> bool:
        if not self.instances.has_adopted.is_set():
            self.instances.adoption.aborted.add(request_id)
        found = request_id in self._ledger
        self.requests.fail(request_id, Failure.ABORTED, "aborted")
        return found

    def status(self) -> baton_pb2.ClusterStatus:
        connections = self.instances.connections.values()
        return cluster_status(self.config, connections, self._scheduler, len(self._ledger), self.links)

    # Hands

    @property
    def instance_names(self) -> list[str]:
        return [holder.instance for holder in self.instances.connections]

    def hand_over(self, request_id: str, to: Place, reason: str) -> None:
        self.requests.carry_out(self._ledger.hand_over(request_id, to, reason))

    def tell(self, holder: Holder, message: FrontMessage) -> None:
        self.instances.tell(holder, message)

    def on_members_changed(self) -> None:
        self.readiness_changed.set()
        self.instances.watch_roles()
        self.requests.dispatch()
