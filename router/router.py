"""The global router: takes requests in, decides where they run, and relays what they say.

client -> front -> submit -> ledger, queue -> scheduler -> Dispatch -> instances -> TokenUpdate -> ledger -> stream
All of it runs in one event loop; the ledger and the scheduler decide, this carries out.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

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
    SequenceState,
    StepUpdate,
)
from cluster.pb import baton_pb2
from cluster.snapshot import InstanceSnapshot
from router import handover_steps
from router.adoption import Adoption
from router.backend import AdmittedRequest, AttachedRequest, TokenDelta
from router.broken_links import BrokenLinks
from router.config import RouterConfig
from router.connection import InstanceConnection
from router.errors import (
    BatonError,
    CannotResume,
    DeadlineExceeded,
    DuplicateRequest,
    GenerationFailed,
    InstanceLost,
    NoInstance,
    QueueFull,
    RequestAborted,
    UnknownRequest,
)
from router.ledger import Adopt, Deliver, Fail, Failure, Instruction, Ledger, Note, Place, Requeue, Step, Tell
from router.observer import RouterObserver
from router.operations import Operations
from router.outage import Outage
from router.policies import DISPATCH_POLICIES, RequestView
from router.rescheduler import Rescheduler
from router.scheduler import Member, Scheduler
from router.status import cluster_status
from router.stream_store import StreamStore, Timer
from router.streams import RequestStream, StreamReader
from router.timeline import Timeline

# Told to a client that finds the queue full: about the time in which a queue of short requests moves on.
_RETRY_AFTER_S = 1.0

log = logging.getLogger(__name__)


class Router:
    """Implements `Backend`, `ConnectionEvents`, `StreamEvents` and, for operators, `Hands`."""

    def __init__(self, config: RouterConfig) -> None:
        self.config = config
        self.front = f"{config.name}/{config.term}"
        self._ledger = Ledger(config.term)
        self._scheduler = Scheduler(DISPATCH_POLICIES[config.policy](), config.max_queued_requests)
        self._streams = StreamStore(config.retention_s)
        self._connections: dict[Holder, InstanceConnection] = {}
        self._joining: dict[Holder, Member] = {}
        self._expected: set[Holder] = set()
        self._adoption = Adoption()
        self._has_adopted = asyncio.Event()
        self._outage = Outage(config.no_instance_timeout_s, self._refuse_queued)
        self.timeline = Timeline(self._ledger)
        self.rescheduler = Rescheduler(config.rescheduling, self._ledger, self._scheduler, self.hand_over)
        self.operations = Operations(self._ledger, self._scheduler, self, self.rescheduler)
        self._observers: list[RouterObserver] = [
            self.timeline,
            self.rescheduler,
            self.operations,
            BrokenLinks(self._scheduler),
        ]
        self.readiness_changed = asyncio.Event()
        self._is_closing = False

    def observe(self, observer: RouterObserver) -> None:
        self._observers.append(observer)

    # Instances

    async def set_instances(self, infos: Iterable[InstanceInfo]) -> None:
        """These are all there are: connects to the new ones, lets go of those that are not among them."""
        if self._is_closing:
            return
        wanted = {Holder(info.name, info.incarnation): info for info in infos}
        gone = [self._connections.pop(holder) for holder in list(self._connections) if holder not in wanted]
        for connection in gone:
            self._scheduler.leave(connection.holder)  # all of them first: what one had must not go to another
        for connection in gone:
            self._adoption.exclude(connection.holder)
            self._expected.discard(connection.holder)
            self.on_lost(connection.holder, "it was taken out")
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
                self._expect(holder)
        self._begin_adoption()
        # Nothing waits before this: the next call may come meanwhile.
        await asyncio.gather(*(connection.close() for connection in gone))

    def _expect(self, holder: Holder) -> None:
        """It is there, and will be heard at any moment."""
        self._expected.add(holder)
        asyncio.get_running_loop().call_later(self.config.suspect_after_s, self._expected.discard, holder)

    @property
    def is_ready(self) -> bool:
        """Whether requests can be served: every role has an instance that answers."""
        return self._has_adopted.is_set() and self._scheduler.missing_role() is None

    async def close(self) -> None:
        self._is_closing = True
        self._outage.close()
        for entry in list(self._ledger):
            self._carry_out(self._ledger.fail(entry.request_id, Failure.NO_INSTANCE, "the router is stopping"))
        closing = [connection.close() for connection in self._connections.values()]
        self._connections.clear()
        await asyncio.gather(*closing)
        self._streams.close()

    # What an earlier life left

    def _begin_adoption(self) -> None:
        if not (self._has_adopted.is_set() or self._adoption.has_begun):
            self._adoption.expect(self._connections)
            asyncio.get_running_loop().call_later(self.config.suspect_after_s, self._stop_waiting)
        self._adopt_if_all_are_here()

    def _stop_waiting(self) -> None:
        self._adoption.exclude_silent()
        self._adopt_if_all_are_here()

    def _adopt_if_all_are_here(self) -> None:
        """Once; dispatching and attaching begin then."""
        if self._has_adopted.is_set() or not self._adoption.is_over:
            return
        self._has_adopted.set()
        self._carry_out(self._ledger.adopt(self._adoption.reports, self.front))
        for holder in self._adoption.reports:
            if self._scheduler.member(holder) is None:
                self._carry_out(self._ledger.on_instance_lost(holder, "lost before its requests were taken over"))
        for holder, message in self._adoption.early:
            self.on_message(holder, message)
        for request_id in self._adoption.aborted:
            self.abort(request_id)
        self._adoption = Adoption()
        self.readiness_changed.set()
        self._dispatch()

    def _adopt(self, adopt: Adopt) -> None:
        """Its client is not here yet, and has `grace_s` to come back."""
        state = adopt.state
        request = AdmittedRequest(
            request_id=state.request_id,
            prompt_token_ids=state.prompt_token_ids,
            sampling_params=state.sampling_params,
            deadline_s=state.deadline_s,
            priority=state.priority,
            resumable=True,
        )
        self._open(request)
        self._scheduler.hold(state.request_id, adopt.holder, len(state.prompt_token_ids))
        self._streams.start(state.request_id, Timer.GRACE, self.config.grace_s, self._give_up)

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
        )
        self._joining[member.place.holder] = member

    def on_holdings(self, holder: Holder, held: tuple[Held, ...]) -> None:
        """It may be dispatched to from now on."""
        self._expected.discard(holder)
        if member := self._joining.pop(holder, None):
            self._scheduler.join(member)
            self.readiness_changed.set()
            for observer in self._observers:
                observer.on_joined(member)
            self._watch_roles()
        if self._has_adopted.is_set():
            self._carry_out(self._ledger.on_holdings(holder, held))
            self._dispatch()
        else:
            self._adoption.report(holder, held)
            self._adopt_if_all_are_here()

    def on_snapshot(self, snapshot: InstanceSnapshot) -> None:
        if member := self._scheduler.member(snapshot.instance):
            member.observe(snapshot)
            self._watch_roles()
            self._dispatch()
            for observer in self._observers:
                observer.on_snapshot(member)

    def on_lost(self, holder: Holder, reason: str) -> None:
        self._scheduler.leave(holder)
        self._joining.pop(holder, None)
        self.readiness_changed.set()
        self._carry_out(self._ledger.on_instance_lost(holder, reason))
        self._dispatch()
        for observer in self._observers:
            observer.on_lost(holder)
        self._watch_roles()

    def _watch_roles(self) -> None:
        self._outage.watch(self._scheduler.missing_role() is not None)

    def _refuse_queued(self) -> None:
        """What waits for a kind of instance that has not come back ends as what comes new does."""
        if missing := self._scheduler.missing_role():
            for request_id in self._scheduler.queued:
                reason = f"no {missing} instance has come back"
                self._carry_out(self._ledger.fail(request_id, Failure.NO_INSTANCE, reason))

    def on_message(self, holder: Holder, message: InstanceMessage) -> None:
        if not self._has_adopted.is_set():
            self._adoption.early.append((holder, message))
            return
        match message:
            case StepUpdate():
                self._on_step(holder, message)
            case Activated():
                self._carry_out(self._ledger.on_activated(holder, message))
            case GrantRefused():
                self._carry_out(self._ledger.on_grant_refused(message))
            case PassedOn():
                self._carry_out(self._ledger.on_passed_on(holder, message))
            case DispatchRefused():
                self._carry_out(self._ledger.on_dispatch_refused(holder, message))
        self._dispatch()

    def _on_step(self, holder: Holder, message: StepUpdate) -> None:
        for update in message.updates:
            self._carry_out(self._ledger.on_tokens(holder, update))
        if member := self._scheduler.member(holder):
            member.observe_load(message.num_waiting_tokens, message.num_dispatches_seen)

    # Backend

    def submit(self, request: AdmittedRequest) -> StreamReader:
        if self._is_closing:
            raise NoInstance("the router is stopping")
        missing = self._scheduler.missing_role()
        if missing and self._has_adopted.is_set() and not self._expected:
            raise NoInstance(f"no {missing} instance is there now")
        if self._scheduler.is_full:
            raise QueueFull(_RETRY_AFTER_S)
        if request.request_id in self._ledger:
            raise DuplicateRequest(request.request_id)
        self._adoption.aborted.discard(request.request_id)  # that was an earlier one with this id
        self._outage.watch(missing is not None)
        reader = self._open(request).read()
        self._ledger.admit(self._state_of(request))
        self._scheduler.enqueue(_view(request, len(request.prompt_token_ids)))
        self._dispatch()
        return reader

    async def attach(self, request_id: str, is_meant: Callable[[AdmittedRequest], bool]) -> AttachedRequest:
        await self._until_adopted()
        stream = self._streams.find(request_id)
        if stream is None:
            raise UnknownRequest(request_id)
        if not is_meant(stream.request):
            if stream.is_over:
                raise UnknownRequest(request_id)
            raise CannotResume(f"another request runs under the id {request_id!r}")
        stream.is_resumable = True
        self._streams.cancel(request_id, Timer.GRACE)
        return AttachedRequest(stream.request, stream.read())

    async def _until_adopted(self) -> None:
        try:
            await asyncio.wait_for(self._has_adopted.wait(), self.config.no_instance_timeout_s)
        except TimeoutError:
            raise NoInstance("the router has not been told yet which instances there are") from None

    def abort(self, request_id: str) -> bool:
        if not self._has_adopted.is_set():
            self._adoption.aborted.add(request_id)
        found = request_id in self._ledger
        self._carry_out(self._ledger.fail(request_id, Failure.ABORTED, "aborted"))
        return found

    def status(self) -> baton_pb2.ClusterStatus:
        return cluster_status(self.config, self._connections.values(), self._scheduler, len(self._ledger))

    # Hands

    @property
    def instance_names(self) -> list[str]:
        return [holder.instance for holder in self._connections]

    def hand_over(self, request_id: str, to: Place, reason: str) -> None:
        self._carry_out(self._ledger.hand_over(request_id, to, reason))

    def tell(self, holder: Holder, message: FrontMessage) -> None:
        self._carry_out([Tell(holder, message)])

    def on_members_changed(self) -> None:
        self.readiness_changed.set()
        self._watch_roles()
        self._dispatch()

    # StreamEvents

    def on_satisfied(self, stream: RequestStream) -> None:
        self._carry_out(self._ledger.finish(stream.request.request_id))
        self._forget(stream.request.request_id)

    def on_deserted(self, stream: RequestStream) -> None:
        if stream.is_resumable:
            self._streams.start(stream.request.request_id, Timer.GRACE, self.config.grace_s, self._give_up)
        else:
            self._give_up(stream.request.request_id)

    def _give_up(self, request_id: str) -> None:
        self._carry_out(self._ledger.fail(request_id, Failure.ABORTED, "its client is gone"))

    def _open(self, request: AdmittedRequest) -> RequestStream:
        stream = RequestStream(request, self)
        self._streams.add(stream)
        if request.deadline_s is not None:
            delay_s = request.deadline_s - time.monotonic()
            self._streams.start(request.request_id, Timer.DEADLINE, delay_s, self._expire)
        return stream

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

    def _expire(self, request_id: str) -> None:
        self._carry_out(self._ledger.fail(request_id, Failure.DEADLINE_EXCEEDED, "the deadline passed"))

    # Carrying out

    def _dispatch(self) -> None:
        if self._is_closing or not self._has_adopted.is_set():
            return
        for assignment in self._scheduler.assign():
            self._carry_out(
                self._ledger.dispatch(assignment.request_id, assignment.prefill, assignment.decode, assignment.number)
            )

    def _carry_out(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            handover_steps.before(instruction)
            match instruction:
                case Tell(holder, message):
                    if connection := self._connections.get(holder):
                        connection.send(message)
                case Deliver():
                    self._deliver(instruction)
                case Fail():
                    self._forget(instruction.request_id, _error(instruction))
                case Requeue():
                    self._requeue(instruction)
                case Adopt():
                    self._adopt(instruction)
                case Note():
                    self._on_note(instruction)

    def _on_note(self, note: Note) -> None:
        """Those whose tokens do not tell who has them do: the scheduler's picture follows."""
        stream = self._streams.running(note.request_id)
        if note.step is Step.GRANTED and note.peer is not None and stream is not None:
            num_tokens = len(stream.request.prompt_token_ids) + note.num_output_tokens
            self._scheduler.hold(note.request_id, note.peer, num_tokens)
        elif note.step in (Step.PASSED, Step.KEPT) and note.holder is not None:
            self._scheduler.settle(note.request_id, note.holder)
        for observer in self._observers:
            observer.on_note(note)

    def _requeue(self, requeue: Requeue) -> None:
        stream = self._streams.running(requeue.request_id)
        assert stream is not None, f"{requeue.request_id} has no stream"
        self._scheduler.enqueue_again(_view(stream.request, requeue.num_tokens))

    def _deliver(self, deliver: Deliver) -> None:
        delta = TokenDelta(
            start_index=deliver.start_index,
            token_ids=deliver.token_ids,
            logprobs=deliver.logprobs,
            finish_reason=deliver.finish_reason,
            num_cached_tokens=deliver.num_cached_tokens,
        )
        if stream := self._streams.running(deliver.request_id):
            stream.put(delta)
        self._scheduler.grow(deliver.request_id, len(deliver.token_ids))
        for observer in self._observers:
            observer.on_tokens(deliver.request_id, len(deliver.token_ids))
        if deliver.finish_reason is not None:
            self._forget(deliver.request_id)

    def _forget(self, request_id: str, error: BatonError | None = None) -> None:
        """The request is over: whoever waited for its place may go."""
        if stream := self._streams.end(request_id):
            stream.end(error)
            self._scheduler.forget(request_id)
            for observer in self._observers:
                observer.on_ended(stream.finish_reason, error)
            self._dispatch()


def _view(request: AdmittedRequest, num_tokens: int) -> RequestView:
    return RequestView(request_id=request.request_id, num_prompt_tokens=num_tokens, priority=request.priority)


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
