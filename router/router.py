"""The global router: takes requests in, decides where they run, and relays what they say.

client -> front -> submit -> ledger, queue -> scheduler -> Dispatch -> instances -> TokenUpdate -> ledger -> stream
All of it runs in one event loop; the ledger and the scheduler decide, this carries out.
"""

import asyncio
import logging
import time
from collections.abc import Iterable

from cluster.instance.config import InstanceInfo
from cluster.messages import (
    Activated,
    DispatchRefused,
    GrantRefused,
    Holder,
    InstanceMessage,
    PassedOn,
    SequenceState,
    StepUpdate,
)
from cluster.pb import baton_pb2
from cluster.snapshot import InstanceSnapshot
from router.config import RouterConfig
from router.connection import InstanceConnection
from router.errors import (
    BatonError,
    DeadlineExceeded,
    DuplicateRequest,
    GenerationFailed,
    InstanceLost,
    NoInstance,
    QueueFull,
    RequestAborted,
)
from router.generation import AdmittedRequest, TokenDelta
from router.ledger import Deliver, Fail, Failure, Instruction, Ledger, Place, Tell
from router.policies import DISPATCH_POLICIES, RequestView
from router.scheduler import Member, Scheduler
from router.status import cluster_status
from router.streams import RequestStream

# Told to a client that finds the queue full: about the time in which a queue of short requests moves on.
_RETRY_AFTER_S = 1.0

log = logging.getLogger(__name__)


class Router:
    """Implements `router.generation.Backend` and `router.connection.ConnectionEvents`."""

    def __init__(self, config: RouterConfig) -> None:
        self.config = config
        self.front = f"{config.name}/{config.term}"
        self._ledger = Ledger(config.term)
        self._scheduler = Scheduler(DISPATCH_POLICIES[config.policy](), config.max_queued_requests)
        self._streams: dict[str, RequestStream] = {}
        self._deadlines: dict[str, asyncio.TimerHandle] = {}
        self._connections: dict[Holder, InstanceConnection] = {}
        self.readiness_changed = asyncio.Event()

    # Instances

    async def set_instances(self, infos: Iterable[InstanceInfo]) -> None:
        """These are all there are: connects to the new ones, lets go of those that are not among them."""
        wanted = {Holder(info.name, info.incarnation): info for info in infos}
        gone = [connection for holder, connection in self._connections.items() if holder not in wanted]
        for connection in gone:
            del self._connections[connection.holder]
            self.on_lost(connection.holder, "it was taken out")  # before anything waits: nobody is sent there now
            await connection.close()
        for holder, info in wanted.items():
            if holder not in self._connections:
                self._connections[holder] = InstanceConnection(
                    info,
                    self.front,
                    self.config.term,
                    self,
                    secret=self.config.secret,
                    suspect_after_s=self.config.suspect_after_s,
                )

    @property
    def is_ready(self) -> bool:
        """Whether requests can be served: every role has an instance that answers."""
        return self._scheduler.missing_role() is None

    async def close(self) -> None:
        for entry in list(self._ledger):
            self._carry_out(self._ledger.fail(entry.request_id, Failure.NO_INSTANCE, "the router is stopping"))
        for connection in self._connections.values():
            await connection.close()
        self._connections.clear()

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
        )
        self._scheduler.join(member)
        self.readiness_changed.set()
        self._dispatch()

    def on_snapshot(self, snapshot: InstanceSnapshot) -> None:
        if member := self._scheduler.member(snapshot.instance):
            member.observe(snapshot)
            self._dispatch()

    def on_lost(self, holder: Holder, reason: str) -> None:
        self._scheduler.leave(holder)
        self.readiness_changed.set()
        self._carry_out(self._ledger.on_instance_lost(holder, reason))
        if self._scheduler.missing_role():
            asyncio.get_running_loop().call_later(self.config.no_instance_timeout_s, self._refuse_queued)

    def _refuse_queued(self) -> None:
        """What waits for a kind of instance that has not come back ends as what comes new does."""
        if missing := self._scheduler.missing_role():
            for request_id in self._scheduler.queued:
                reason = f"no {missing} instance has come back"
                self._carry_out(self._ledger.fail(request_id, Failure.NO_INSTANCE, reason))

    def on_message(self, holder: Holder, message: InstanceMessage) -> None:
        match message:
            case StepUpdate():
                self._on_step(holder, message)
            case Activated():
                self._carry_out(self._ledger.on_activated(holder, message))
                self._settle(message.request_id)
            case GrantRefused():
                log.info("%s stays where it is: %s", message.request_id, message.reason)
                self._carry_out(self._ledger.on_grant_refused(message))
                self._settle(message.request_id)
            case PassedOn():
                self._carry_out(self._ledger.on_passed_on(holder, message))
            case DispatchRefused():
                self._carry_out(self._ledger.on_dispatch_refused(holder, message))

    def _on_step(self, holder: Holder, message: StepUpdate) -> None:
        for update in message.updates:
            self._carry_out(self._ledger.on_tokens(holder, update))
        if member := self._scheduler.member(holder):
            member.observe_load(message.num_waiting_tokens, message.num_dispatches_seen)
        self._dispatch()

    def _settle(self, request_id: str) -> None:
        """A grant was committed or closed: the owner on record is the only holder."""
        if owner := self._ledger.sole_holder(request_id):
            self._scheduler.settle(request_id, owner)
            self._dispatch()

    # Backend

    def submit(self, request: AdmittedRequest) -> RequestStream:
        if missing := self._scheduler.missing_role():
            raise NoInstance(f"no {missing} instance is there now")
        if self._scheduler.is_full:
            raise QueueFull(_RETRY_AFTER_S)
        if request.request_id in self._ledger:
            raise DuplicateRequest(request.request_id)
        stream = RequestStream(lambda: self._on_closed(request.request_id, stream))
        self._streams[request.request_id] = stream
        self._ledger.admit(self._state_of(request))
        self._watch_deadline(request)
        view = RequestView(
            request_id=request.request_id,
            num_prompt_tokens=len(request.prompt_token_ids),
            priority=request.priority,
        )
        self._scheduler.enqueue(view)
        self._dispatch()
        return stream

    def abort(self, request_id: str) -> bool:
        found = request_id in self._ledger
        self._carry_out(self._ledger.fail(request_id, Failure.ABORTED, "aborted"))
        return found

    def status(self) -> baton_pb2.ClusterStatus:
        return cluster_status(self.config, self._connections.values(), self._scheduler, len(self._ledger))

    def _on_closed(self, request_id: str, stream: RequestStream) -> None:
        """A stream that was over before may be closed when its id is already another request's."""
        if self._streams.get(request_id) is stream:
            self._end(request_id)

    def _end(self, request_id: str) -> None:
        """The client has all it wants, or is gone."""
        self._carry_out(self._ledger.finish(request_id))
        self._forget(request_id)

    def _state_of(self, request: AdmittedRequest) -> SequenceState:
        return SequenceState(
            request_id=request.request_id,
            front=self.front,
            prompt_token_ids=request.prompt_token_ids,
            sampling_params=request.sampling_params,
            arrival_time_s=time.monotonic(),
            deadline_s=request.deadline_s,
            priority=request.priority,
        )

    def _watch_deadline(self, request: AdmittedRequest) -> None:
        if request.deadline_s is not None:
            self._deadlines[request.request_id] = asyncio.get_running_loop().call_later(
                max(0.0, request.deadline_s - time.monotonic()), self._expire, request.request_id
            )

    def _expire(self, request_id: str) -> None:
        self._carry_out(self._ledger.fail(request_id, Failure.DEADLINE_EXCEEDED, "the deadline passed"))

    # Carrying out

    def _dispatch(self) -> None:
        for assignment in self._scheduler.assign():
            self._carry_out(
                self._ledger.dispatch(assignment.request_id, assignment.prefill, assignment.decode, assignment.number)
            )

    def _carry_out(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Tell(holder, message):
                    if connection := self._connections.get(holder):
                        connection.send(message)
                case Deliver():
                    self._deliver(instruction)
                case Fail():
                    self._put(instruction.request_id, _error(instruction))
                    self._forget(instruction.request_id)

    def _deliver(self, deliver: Deliver) -> None:
        delta = TokenDelta(
            start_index=deliver.start_index,
            token_ids=deliver.token_ids,
            logprobs=deliver.logprobs,
            finish_reason=deliver.finish_reason,
            num_cached_tokens=deliver.num_cached_tokens,
        )
        self._put(deliver.request_id, delta)
        self._scheduler.grow(deliver.request_id, len(deliver.token_ids))
        if deliver.finish_reason is not None:
            self._forget(deliver.request_id)

    def _put(self, request_id: str, item: TokenDelta | BatonError) -> None:
        if stream := self._streams.get(request_id):
            stream.put(item)

    def _forget(self, request_id: str) -> None:
        """The request is over: whoever waited for its place may go."""
        if self._streams.pop(request_id, None) is None:
            return
        if timer := self._deadlines.pop(request_id, None):
            timer.cancel()
        self._scheduler.forget(request_id)
        self._dispatch()


def _error(fail: Fail) -> BatonError:
    match fail.failure:
        case Failure.INSTANCE_LOST:
            return InstanceLost(fail.reason)
        case Failure.DEADLINE_EXCEEDED:
            return DeadlineExceeded()
        case Failure.NO_INSTANCE:
            return NoInstance(fail.reason)
        case Failure.ABORTED:
            return RequestAborted(fail.request_id)
        case Failure.DISPATCH_REFUSED:
            return GenerationFailed(f"an instance refused the request: {fail.reason}")
