"""A request that this instance holds, from its dispatch or activation until its front has the last token."""

from dataclasses import dataclass

from cluster.engine.sequence import FINISH_REASONS, FinishReason, Sequence
from cluster.handover.protocol.source import HandoverSource
from cluster.messages import Epoch, Held, SequenceState, TokenUpdate

BEFORE_ALL = Epoch(0, 0)


@dataclass(slots=True, kw_only=True, eq=False)
class Hosted:
    """`num_reported`: output tokens that the front has been sent. All are kept until it acknowledges the last.

    `outranks`: no grant up to this epoch can have taken it away from here.
    """

    sequence: Sequence
    front: str
    epoch: Epoch
    num_reported: int = 0
    reported_finish: bool = False
    activation_acknowledged: bool = True
    handover: HandoverSource | None = None
    outranks: Epoch = BEFORE_ALL

    @property
    def request_id(self) -> str:
        return self.sequence.request_id

    @property
    def is_passing(self) -> bool:
        """A handover is under way."""
        return self.handover is not None and self.handover.is_open

    @property
    def is_leaving(self) -> bool:
        """A token of it may be its last here."""
        return self.is_passing or self.sequence.is_finished

    @property
    def open_handover(self) -> HandoverSource:
        assert self.handover is not None, f"{self.request_id} is not being handed over"
        return self.handover

    @property
    def finish_reason(self) -> FinishReason | None:
        return FINISH_REASONS.get(self.sequence.status)

    def report(self) -> TokenUpdate | None:
        """Everything the front has not been sent; None if there is nothing."""
        sequence, start = self.sequence, self.num_reported
        if start == sequence.num_output_tokens and (self.finish_reason is None or self.reported_finish):
            return None
        self.num_reported = sequence.num_output_tokens
        self.reported_finish = self.finish_reason is not None
        return TokenUpdate(
            request_id=self.request_id,
            epoch=self.epoch,
            start_index=start,
            token_ids=tuple(sequence.output_token_ids[start:]),
            logprobs=tuple(sequence.logprobs[start:]),
            finish_reason=self.finish_reason,
            num_cached_tokens=sequence.num_cached_tokens,
        )

    def held(self, grant_epoch: Epoch | None) -> Held:
        """All of it, for a front that comes to take it over; what it says here it need not be told again."""
        self.num_reported = self.sequence.num_output_tokens
        self.reported_finish = self.finish_reason is not None
        return Held(
            state=self.state(),
            epoch=self.epoch,
            outranks=self.outranks,
            grant_epoch=grant_epoch,
            finish_reason=self.finish_reason,
        )

    def rewind(self, next_index: int) -> None:
        self.num_reported = min(next_index, self.num_reported)
        self.reported_finish = False

    def state(self) -> SequenceState:
        sequence = self.sequence
        return SequenceState(
            request_id=sequence.request_id,
            front=self.front,
            prompt_token_ids=sequence.prompt_token_ids,
            output_token_ids=tuple(sequence.output_token_ids),
            sampling_params=sequence.sampling_params,
            arrival_time_s=sequence.arrival_time_s,
            deadline_s=sequence.deadline_s,
            priority=sequence.priority,
            logprobs=tuple(sequence.logprobs),
            num_cached_tokens=sequence.num_cached_tokens,
        )


def sequence_from(state: SequenceState) -> Sequence:
    """A sequence with all of `state` and no KV."""
    sequence = Sequence(
        request_id=state.request_id,
        prompt_token_ids=state.prompt_token_ids,
        sampling_params=state.sampling_params,
        arrival_time_s=state.arrival_time_s,
    )
    restore(sequence, state)
    return sequence


def restore(sequence: Sequence, state: SequenceState) -> None:
    """Fills in everything but the KV; a reserved sequence is blank until its baton arrives."""
    sequence.prompt_token_ids = state.prompt_token_ids
    sequence.sampling_params = state.sampling_params
    sequence.arrival_time_s = state.arrival_time_s
    sequence.deadline_s = state.deadline_s
    sequence.priority = state.priority
    sequence.output_token_ids = list(state.output_token_ids)
    sequence.logprobs = list(state.logprobs)
    sequence.num_cached_tokens = state.num_cached_tokens
