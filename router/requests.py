"""The requests of this router: their ledger entries, their places in the queue and their streams, changed together.

The ledger says what is to be done; here it is carried out.
"""

import time
from collections.abc import Callable, Sequence

from cluster.engine.block_hash import hash_blocks
from cluster.messages import FrontMessage, Holder, SequenceState
from router import handover_steps
from router.backend import AdmittedRequest, TokenDelta
from router.config import RouterConfig
from router.errors import (
    BatonError,
    DeadlineExceeded,
    GenerationFailed,
    InstanceLost,
    NoInstance,
    RequestAborted,
)
from router.ledger import Adopt, Deliver, Fail, Failure, Instruction, Ledger, Note, Requeue, Step, Tell
from router.observer import RouterObserver
from router.policies import RequestView
from router.scheduler import Scheduler
from router.stream_store import StreamStore, Timer
from router.streams import RequestStream, StreamReader


class Requests:
    """Implements `StreamEvents`. Nothing leaves the queue until `is_dispatching`."""

    def __init__(
        self,
        config: RouterConfig,
        front: str,
        ledger: Ledger,
        scheduler: Scheduler,
        observers: list[RouterObserver],
        tell: Callable[[Holder, FrontMessage], None],
    ) -> None:
        self._config = config
        self._front = front
        self._ledger = ledger
        self._scheduler = scheduler
        self._observers = observers
        self._tell = tell
        self.streams = StreamStore(config.retention_s)
        self.is_dispatching = False

    def admit(self, request: AdmittedRequest) -> StreamReader:
        reader = self._open(request).read()
        self._ledger.admit(self._state_of(request))
        self._scheduler.enqueue(self._view(request, request.prompt_token_ids))
        self.dispatch()
        return reader

    def fail(self, request_id: str, failure: Failure, reason: str) -> None:
        self.carry_out(self._ledger.fail(request_id, failure, reason))

    # Carrying out

    def dispatch(self) -> None:
        if not self.is_dispatching:
            return
        while (assignment := self._scheduler.assign_next()) is not None:
            for observer in self._observers:
                observer.on_assigned(assignment)
            self.carry_out(
                self._ledger.dispatch(assignment.request_id, assignment.prefill, assignment.decode, assignment.number)
            )

    def carry_out(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            handover_steps.before(instruction)
            match instruction:
                case Tell(holder, message):
                    self._tell(holder, message)
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
        stream = self.streams.running(note.request_id)
        if note.step is Step.GRANTED and note.peer is not None and stream is not None:
            num_tokens = len(stream.request.prompt_token_ids) + note.num_output_tokens
            self._scheduler.hold(note.request_id, note.peer, num_tokens)
        elif note.step in (Step.PASSED, Step.KEPT) and note.holder is not None:
            self._scheduler.settle(note.request_id, note.holder)
        for observer in self._observers:
            observer.on_note(note)

    def _requeue(self, requeue: Requeue) -> None:
        stream = self.streams.running(requeue.request_id)
        assert stream is not None, f"{requeue.request_id} has no stream"
        token_ids = [*stream.request.prompt_token_ids, *stream.token_ids]
        self._scheduler.enqueue_again(self._view(stream.request, token_ids[: requeue.num_tokens]))

    def _view(self, request: AdmittedRequest, token_ids: Sequence[int]) -> RequestView:
        """As the scheduler sees it: with the names of the blocks that some instance may have already."""
        block_size = self._scheduler.block_size
        return RequestView(
            request_id=request.request_id,
            num_prompt_tokens=len(token_ids),
            priority=request.priority,
            block_hashes=tuple(hash_blocks(token_ids, block_size)) if block_size else (),
        )

    def _deliver(self, deliver: Deliver) -> None:
        delta = TokenDelta(
            start_index=deliver.start_index,
            token_ids=deliver.token_ids,
            logprobs=deliver.logprobs,
            finish_reason=deliver.finish_reason,
            num_cached_tokens=deliver.num_cached_tokens,
        )
        if stream := self.streams.running(deliver.request_id):
            stream.put(delta)
        self._scheduler.grow(deliver.request_id, len(deliver.token_ids))
        for observer in self._observers:
            observer.on_tokens(deliver.request_id, len(deliver.token_ids))
        if deliver.finish_reason is not None:
            self._forget(deliver.request_id)

    def _forget(self, request_id: str, error: BatonError | None = None) -> None:
        """The request is over: whoever waited for its place may go."""
        if stream := self.streams.end(request_id):
            stream.end(error)
            if error is None:
                self._scheduler.computed(request_id, [*stream.request.prompt_token_ids, *stream.token_ids[:-1]])
            self._scheduler.forget(request_id)
            for observer in self._observers:
                observer.on_ended(stream.finish_reason, error)
            self.dispatch()

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
        self.streams.start(state.request_id, Timer.GRACE, self._config.grace_s, self._give_up)

    # StreamEvents

    def on_satisfied(self, stream: RequestStream) -> None:
        self.carry_out(self._ledger.finish(stream.request.request_id))
        self._forget(stream.request.request_id)

    def on_deserted(self, stream: RequestStream) -> None:
        if stream.is_resumable:
            self.streams.start(stream.request.request_id, Timer.GRACE, self._config.grace_s, self._give_up)
        else:
            self._give_up(stream.request.request_id)

    def _give_up(self, request_id: str) -> None:
        self.fail(request_id, Failure.ABORTED, "its client is gone")

    def _open(self, request: AdmittedRequest) -> RequestStream:
        stream = RequestStream(request, self)
        self.streams.add(stream)
        if request.deadline_s is not None:
            delay_s = request.deadline_s - time.monotonic()
            self.streams.start(request.request_id, Timer.DEADLINE, delay_s, self._expire)
        return stream

    def _state_of(self, request: AdmittedRequest) -> SequenceState:
        return SequenceState(
            request_id=request.request_id,
            front=self._front,
            prompt_token_ids=request.prompt_token_ids,
            sampling_params=request.sampling_params,
            arrival_time_s=time.monotonic(),
            deadline_s=request.deadline_s,
            priority=request.priority,
        )

    def _expire(self, request_id: str) -> None:
        self.fail(request_id, Failure.DEADLINE_EXCEEDED, "the deadline passed")


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
