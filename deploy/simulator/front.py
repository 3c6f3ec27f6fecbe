"""The router of a simulation: the real ledger, scheduler, forecast and rescheduler, and what `router/` does around."""

from collections.abc import Callable, Iterable
from collections.abc import Sequence as List
from functools import partial

from cluster.engine.block_hash import hash_blocks
from cluster.engine.sampling_params import SamplingParams
from cluster.messages import (
    Activated,
    DispatchRefused,
    FrontMessage,
    GrantRefused,
    Holder,
    Holdings,
    InstanceMessage,
    PassedOn,
    SequenceState,
    StepUpdate,
)
from cluster.snapshot import InstanceSnapshot
from deploy.simulator.client import Client
from deploy.simulator.clock import Clock
from deploy.simulator.cluster import SimCluster
from deploy.simulator.handovers import Handovers
from deploy.simulator.instance import FRONT
from deploy.simulator.prompts import Computed, make_prompt, own_token
from deploy.simulator.recorder import Recorder
from deploy.simulator.untold import Behind
from deploy.workload.request import WorkloadRequest
from router.ledger import Deliver, Fail, Failure, Instruction, Ledger, Note, Place, Requeue, Step, Tell
from router.links.forecast import LiveForecast, Site
from router.policies import DISPATCH_POLICIES, RequestView
from router.rescheduler import Rescheduler
from router.scheduler import Assignment, Member, Scheduler


class Front:
    """`tell` sends to an instance. `untold`: of which instances the picture is behind.

    What becomes free is given out when all that came together has been heard.
    """

    def __init__(
        self,
        cluster: SimCluster,
        clock: Clock,
        recorder: Recorder,
        handovers: Handovers,
        tell: Callable[[Holder, FrontMessage], None],
        untold: Callable[[], Iterable[Behind]],
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._recorder = recorder
        self._handovers = handovers
        self._tell = tell
        self._untold = untold
        self.clients: dict[str, Client] = {}
        self.num_failed = 0
        self.num_over = 0
        self.moved_s = 0.0  # when something happened to a request last
        self._ledger = Ledger(term=1)
        self.scheduler = Scheduler(DISPATCH_POLICIES[cluster.policy](), cluster.max_queued_requests)
        self._forecast = LiveForecast()
        self.scheduler.forecast = self._forecast
        self._rescheduler = Rescheduler(cluster.rescheduling, self._ledger, self.scheduler, self._hand_over)
        self._hashes_prompts = any(it.enable_prefix_caching for it in cluster.instances)
        self._missing_since_s: float | None = None

    # Clients

    def arrive(self, number: int, request: WorkloadRequest) -> None:
        if self.scheduler.is_full:
            self.refuse(number, request, "the queue is full")
            return
        request_id = str(number)
        params = SamplingParams(temperature=0.0, max_tokens=request.num_output_tokens, seed=own_token(number))
        state = SequenceState(
            request_id=request_id,
            front=FRONT,
            prompt_token_ids=make_prompt(request, number),
            sampling_params=params,
            arrival_time_s=self._clock.now_s,
        )
        self.clients[request_id] = Client(
            number=number,
            request=request,
            state=state,
            block_hashes=self._hashes(state.prompt_token_ids),
            arrival_s=self._clock.now_s,
        )
        self._ledger.admit(state)
        self._enqueue(request_id, self.scheduler.enqueue)
        self.dispatch()

    def refuse(self, number: int, request: WorkloadRequest, error: str) -> None:
        """It is not even asked for."""
        state = SequenceState(
            request_id=str(number),
            front=FRONT,
            prompt_token_ids=(),
            sampling_params=SamplingParams(),
            arrival_time_s=self._clock.now_s,
        )
        client = Client(number=number, request=request, state=state, block_hashes=(), arrival_s=self._clock.now_s)
        self._record(client, error)

    def give_up(self, request_ids: Iterable[str], reason: str) -> None:
        for request_id in request_ids:
            self._carry_out(self._ledger.fail(request_id, Failure.NO_INSTANCE, reason))
        self.dispatch()

    def _hashes(self, token_ids: List[int]) -> tuple[bytes, ...]:
        block_size = self.scheduler.block_size
        return tuple(hash_blocks(token_ids[:], block_size)) if block_size and self._hashes_prompts else ()

    def _enqueue(self, request_id: str, put: Callable[[RequestView], None]) -> None:
        client = self.clients[request_id]
        num_tokens = client.request.num_prompt_tokens + client.num_told
        put(RequestView(request_id=request_id, num_prompt_tokens=num_tokens, block_hashes=client.block_hashes))

    def _record(self, client: Client, error: str) -> None:
        self.num_over += 1
        self.num_failed += bool(error)
        self._recorder.ended(client.record(error))

    # Deciding

    def dispatch(self) -> None:
        while self.scheduler.num_queued and (assignment := self._assign_next()) is not None:
            self._promise(assignment)
            self._carry_out(
                self._ledger.dispatch(assignment.request_id, assignment.prefill, assignment.decode, assignment.number)
            )

    def _assign_next(self) -> Assignment | None:
        """With every instance as it is now, told or not."""
        behind = []
        for holder, count, load in self._untold():
            if member := self.scheduler.member(holder):
                behind.append((member, count))
                member.num_tokens_in_all += count
                if load is not None:
                    member.observe_load(*load)
        assignment = self.scheduler.assign_next()
        for member, count in behind:
            member.num_tokens_in_all -= count
        return assignment

    def reschedule(self) -> None:
        self._rescheduler.begin_round()
        self._rescheduler.act()

    def watch_roles(self) -> None:
        """What waits for a kind of instance that does not come back ends, as it does at the router."""
        missing, now_s = self.scheduler.missing_role(), self._clock.now_s
        if missing is None:
            self._missing_since_s = None
        elif self._missing_since_s is None:
            self._missing_since_s = now_s
        elif now_s - self._missing_since_s >= self._cluster.no_instance_timeout_s:
            self.give_up(self.scheduler.queued, f"no {missing} instance has come back")

    def _hand_over(self, request_id: str, to: Place, reason: str) -> None:
        self._carry_out(self._ledger.hand_over(request_id, to, reason))

    def _promise(self, assignment: Assignment) -> None:
        if assignment.decode is not None:
            ends = assignment.prefill.holder, assignment.decode.holder
            self._forecast.promised(assignment.request_id, *ends, assignment.num_missing_tokens, is_queued=True)

    # Instances

    def join(self, member: Member) -> None:
        self.scheduler.join(member)
        self._learn_sites()
        self._rescheduler.on_joined(member)
        self.watch_roles()
        self.dispatch()

    def lose(self, holder: Holder, reason: str) -> None:
        if self.scheduler.member(holder) is None:
            return
        self.scheduler.leave(holder)
        self._carry_out(self._ledger.on_instance_lost(holder, reason))
        self.dispatch()
        self._learn_sites()
        self._rescheduler.on_lost(holder)
        self.watch_roles()

    def _learn_sites(self) -> None:
        sites = {
            member.place.holder: Site(
                node=member.node, token_bytes=member.block_bytes / member.block_size, unreachable=member.unreachable
            )
            for member in self.scheduler.members
        }
        self._forecast.learned(self._cluster.believed or self._cluster.topology, (), sites)

    def on_snapshot(self, snapshot: InstanceSnapshot) -> None:
        if member := self.scheduler.member(snapshot.instance):
            member.observe(snapshot)
            self.dispatch()

    def on_message(self, holder: Holder, message: InstanceMessage) -> None:
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
            case Holdings(held=held):
                self._carry_out(self._ledger.on_holdings(holder, held))
        self.dispatch()

    def _on_step(self, holder: Holder, message: StepUpdate) -> None:
        for update in message.updates:
            if (client := self.clients.get(update.request_id)) is not None:
                client.decoded_on = holder.instance
            self._carry_out(self._ledger.on_tokens(holder, update))
        if member := self.scheduler.member(holder):
            member.observe_load(message.num_waiting_tokens, message.num_dispatches_seen)

    # Carrying out

    def _carry_out(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Tell(holder, message):
                    self._tell(holder, message)
                case Deliver():
                    self._deliver(instruction)
                case Fail():
                    self._end(instruction.request_id, f"{instruction.failure.value}: {instruction.reason}")
                case Requeue(request_id=request_id):
                    self._enqueue(request_id, self.scheduler.enqueue_again)
                case Note():
                    self._note(instruction)

    def _deliver(self, deliver: Deliver) -> None:
        client = self.clients[deliver.request_id]
        self.moved_s = self._clock.now_s
        client.told(deliver.start_index + len(deliver.token_ids))
        client.num_cached_tokens = deliver.num_cached_tokens
        if not deliver.start_index:
            client.prefilled_on = client.decoded_on
        client.hear(client.num_told, self._clock.now_s, self._recorder)
        self.scheduler.grow(deliver.request_id, len(deliver.token_ids))
        self._forecast.computed(deliver.request_id)
        if deliver.finish_reason is not None:
            self._end(deliver.request_id)

    def _end(self, request_id: str, error: str = "") -> None:
        client = self.clients.pop(request_id)
        self.moved_s = self._clock.now_s
        client.told(client.num_tokens)
        if not error and self._hashes_prompts:
            self.scheduler.computed(request_id, Computed(client.state, client.num_told - 1))
        self.scheduler.forget(request_id)
        self._forecast.settled(request_id)
        self._record(client, error)

    def _note(self, note: Note) -> None:
        self._picture(note)
        self._forecast_by(note)
        self._handovers.on_note(note)
        self._rescheduler.on_note(note)

    def _picture(self, note: Note) -> None:
        client = self.clients.get(note.request_id)
        if note.step is Step.GRANTED and note.peer is not None and client is not None:
            num_tokens = client.request.num_prompt_tokens + note.num_output_tokens
            self.scheduler.hold(note.request_id, note.peer, num_tokens)
        elif note.step in (Step.PASSED, Step.KEPT) and note.holder is not None:
            self.scheduler.settle(note.request_id, note.holder)
        if client is not None:
            client.num_handovers += note.step is Step.PASSED
            client.num_recoveries += note.step is Step.RECOVERING
        if note.step is Step.KEPT and note.unreachable and note.holder is not None and note.peer is not None:
            self._avoid(note.holder, note.peer)

    def _avoid(self, source: Holder, target: Holder) -> None:
        if member := self.scheduler.member(source):
            member.unreachable.add(target)
            self._clock.after(self._cluster.retry_link_after_s, partial(member.unreachable.discard, target))

    def _forecast_by(self, note: Note) -> None:
        """KV is promised to a link by a grant, until the request is there or will not be."""
        if note.step is Step.DISPATCHED:
            return
        if note.step is not Step.GRANTED:
            self._forecast.settled(note.request_id)
        elif note.reason != "prefill" and note.holder and note.peer and (entry := self._ledger.get(note.request_id)):
            num_tokens = len(entry.state.prompt_token_ids) + note.num_output_tokens
            self._forecast.promised(note.request_id, note.holder, note.peer, num_tokens)
