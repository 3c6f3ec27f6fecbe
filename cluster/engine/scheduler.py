"""What each step computes, and who has blocks for it.

Every sequence has `num_tokens` and `num_computed_tokens`; each step hands out one token budget so that the second
catches up with the first. Chunked prefill, decode, prefix hits, preemption by recompute and arrival with KV already
there are all this rule (the scheduler of vLLM v1; that decodes never wait for a long prefill is from Sarathi-Serve).

    add ----> waiting ---------admitted--------> running ----> gone (finished)
              |  ^  ^--------preempted-----------^  |  ^
              |  +-------thaw---- frozen ---thaw-+  |  |       remove: from anywhere
              +-------freeze-----> ^ <---freeze-----+  |       expire: but for the frozen and the reserved
    reserve ----------> reserved ------activate--------+
"""

from collections.abc import Sequence as List
from dataclasses import dataclass, fields, replace

from cluster.engine.block_manager import BlockManager
from cluster.engine.roster import Roster
from cluster.engine.scheduler_output import SampledToken, ScheduledSequence, SchedulerOutput, SealedBlocks, StepResult
from cluster.engine.sequence import Sequence, SequenceStatus
from cluster.engine.stop_conditions import stop_status


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """`max_num_seqs` bounds all that hold blocks: the running, the frozen and the reserved.

    `watermark_blocks` stay free when a sequence is admitted while others run, for these to grow into.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    watermark_blocks: int
    max_model_len: int

    def __post_init__(self) -> None:
        for field in fields(self):
            least = 0 if field.name == "watermark_blocks" else 1
            if getattr(self, field.name) < least:
                raise ValueError(f"{field.name} is {getattr(self, field.name)}, and must be at least {least}")


class Scheduler:
    """A sequence that would outgrow all blocks ends as FINISHED_LENGTH_CAPPED, as it does at `max_model_len`."""

    def __init__(self, config: SchedulerConfig, block_manager: BlockManager) -> None:
        self.config = config
        self.block_manager = block_manager
        self._roster = Roster()
        self._max_num_tokens = min(config.max_model_len, block_manager.num_tokens + 1)
        self._in_flight: tuple[ScheduledSequence, ...] = ()
        self._quarantine: list[int] = []
        self._blocked_at: tuple[int, int] | None = None

    # Coming and going

    @property
    def max_num_tokens(self) -> int:
        """Of a sequence, with its last one, which needs no KV."""
        return self._max_num_tokens

    def can_ever_hold(self, num_tokens: int) -> bool:
        """Whether a sequence of `num_tokens` can run here and yield one more."""
        return num_tokens < self._max_num_tokens

    def add(self, sequence: Sequence) -> None:
        """Raises ValueError for an id that is here already, for no tokens, and for too many to yield one more."""
        self._refuse_duplicate(sequence)
        if sequence.num_tokens == 0:
            raise ValueError(f"{sequence.request_id} has num_tokens 0: there is nothing to continue")
        self._refuse_too_long(sequence)
        self._roster.enter(sequence, SequenceStatus.WAITING)

    def remove(self, request_id: str, status: SequenceStatus) -> Sequence | None:
        """Lets go of all of it, whatever its state; None if it is not here.

        Blocks that the step in flight may still write are not handed out before it is over.
        """
        sequence = self._roster.leave(request_id, status)
        if sequence is not None:
            if self.is_in_flight(sequence):
                self.block_manager.pin(sequence.block_table)
                self._quarantine += sequence.block_table
            self.block_manager.free(sequence)
        return sequence

    def expire(self, now_s: float) -> list[Sequence]:
        """Removes those whose deadline has passed, as FINISHED_ABORTED.

        Not the frozen, whose baton may be with another instance already, nor the reserved, whose blocks a peer may be
        writing. They are asked again when they thaw or are activated.
        """
        expired = self._roster.expired(now_s)
        for sequence in expired:
            self.remove(sequence.request_id, SequenceStatus.FINISHED_ABORTED)
        return expired

    def reconfigure(self, max_num_batched_tokens: int, watermark_blocks: int) -> None:
        """From the next step on. Raises ValueError as the configuration does."""
        self.config = replace(
            self.config, max_num_batched_tokens=max_num_batched_tokens, watermark_blocks=watermark_blocks
        )

    # Handover

    def freeze(self, request_id: str) -> None:
        """From the next schedule() on it is left alone: it keeps its blocks, and is not run, preempted or expired.

        Raises KeyError for an unknown id, ValueError for a reserved one.
        """
        sequence = self.sequences[request_id]
        if sequence.status is SequenceStatus.WAITING_FOR_REMOTE_KVS:
            raise ValueError(f"{request_id} is {sequence.status.name} and cannot be frozen")
        self._roster.freeze(sequence)

    def thaw(self, request_id: str) -> None:
        """Back to where it was before freeze(); nothing for one that is not frozen."""
        self._roster.thaw(request_id)

    def is_frozen(self, request_id: str) -> bool:
        return request_id in self._roster.frozen

    def reserve(self, sequence: Sequence, num_tokens: int, block_hashes: List[bytes]) -> int | None:
        """Room for a sequence that comes with KV for `num_tokens`; its own tokens need not be known yet.

        Returns how many leading blocks are cached here and need not come; the reference keeps them. None: no seat, or
        not enough blocks above the watermark now. Raises ValueError for an id that is here already.
        """
        self._refuse_duplicate(sequence)
        sequence.known_hashes = list(block_hashes)
        num_cacheable = min(num_tokens, len(block_hashes) * self.block_manager.block_size)
        if not self._admit(sequence, num_tokens, num_cacheable):
            return None
        self._roster.enter(sequence, SequenceStatus.WAITING_FOR_REMOTE_KVS)
        return len(sequence.block_hashes)

    def activate(self, request_id: str) -> None:
        """Tokens and the KV of the first `num_computed_tokens` are there: it runs with the next step.

        Raises KeyError for one that is not reserved, ValueError when tokens and KV do not fit together.
        """
        sequence = self._roster.reserved[request_id]
        self._refuse_too_long(sequence)
        block_size, num_computed = self.block_manager.block_size, sequence.num_computed_tokens
        least, most = len(sequence.block_hashes) * block_size, len(sequence.block_table) * block_size
        most = min(most, sequence.num_tokens - 1)
        if not least <= num_computed <= most:
            raise ValueError(f"{request_id}: num_computed_tokens {num_computed} is not from {least} to {most}")
        self.block_manager.seal(sequence)
        self._roster.move(sequence, SequenceStatus.RUNNING)

    # Steps

    def schedule(self) -> SchedulerOutput:
        """The running first, then those who can be admitted. Nothing advances before update()."""
        self._end_flight()
        scheduled: list[ScheduledSequence] = []
        preempted: list[Sequence] = []
        budget, has_room = self._schedule_running(scheduled, preempted)
        if has_room:
            self._schedule_waiting(scheduled, budget)
        self._in_flight = tuple(scheduled)
        self._blocked_at = None if scheduled else self._state
        return SchedulerOutput(scheduled=self._in_flight, preempted=tuple(preempted))

    def _schedule_running(self, scheduled: list[ScheduledSequence], preempted: list[Sequence]) -> tuple[int, bool]:
        """Returns the budget left, and whether there was room for all, so that others may be admitted.

        Each sequence further behind keeps one token of the budget: a long prefill stalls no decode.
        """
        budget, index, running = self.config.max_num_batched_tokens, 0, self._roster.running
        while budget > 0 and (num_behind := len(running) - index - 1) >= 0:
            sequence = running[index]
            index += 1
            entry = _next_chunk(sequence, max(1, budget - num_behind))
            if not self._grow(sequence, entry.start + entry.num_tokens, preempted):
                return budget, False
            scheduled.append(entry)
            budget -= entry.num_tokens
        return budget, not preempted

    def _grow(self, sequence: Sequence, num_tokens: int, preempted: list[Sequence]) -> bool:
        """Takes blocks from lesser sequences. False: it is the least, and stalls with its blocks until others end.

        To stall is better than to preempt itself: greater ones take its blocks if they need them, and if not, nothing
        is recomputed.
        """
        while not self.block_manager.allocate(sequence, num_tokens):
            victim = self._roster.running[-1]
            if victim is sequence:
                return False
            self.block_manager.free(victim)
            self._roster.move(victim, SequenceStatus.PREEMPTED)
            preempted.append(victim)
        return True

    def _schedule_waiting(self, scheduled: list[ScheduledSequence], budget: int) -> None:
        """Nobody overtakes the head. Room for all its tokens is taken at once: a prefill that began can end."""
        while budget > 0 and (sequence := self._roster.waiting.peek()) is not None:
            # The last token is computed in any case: it yields the next.
            if not self._admit(sequence, sequence.num_tokens, sequence.num_tokens - 1):
                return
            if sequence.status is SequenceStatus.WAITING and not sequence.output_token_ids:
                sequence.num_cached_tokens = sequence.num_computed_tokens
            self._roster.move(sequence, SequenceStatus.RUNNING)
            scheduled.append(_next_chunk(sequence, budget))
            budget -= scheduled[-1].num_tokens

    def _admit(self, sequence: Sequence, num_tokens: int, max_cached_tokens: int) -> bool:
        # Where nobody runs, nobody can grow, and the watermark would only shut out the largest sequences for ever.
        num_spare_blocks = self.config.watermark_blocks if self._roster.running else 0
        return self._roster.num_seated < self.config.max_num_seqs and self.block_manager.admit(
            sequence, num_tokens, max_cached_tokens=max_cached_tokens, num_spare_blocks=num_spare_blocks
        )

    def update(self, output: SchedulerOutput, sampled: List[SampledToken]) -> StepResult:
        """Takes in what the runner made of `output`: one sampled token per entry that samples, in order.

        What was removed since is passed over. Raises ValueError for any other number of tokens.
        """
        if len(sampled) != (num_samples := sum(entry.samples for entry in output.scheduled)):
            raise ValueError(f"the runner sampled {len(sampled)} tokens where {num_samples} were due")
        self._end_flight()
        tokens: list[tuple[Sequence, int]] = []
        sealed: list[SealedBlocks] = []
        finished: list[Sequence] = []
        samples = iter(sampled)
        for entry in output.scheduled:
            sequence, sample = entry.sequence, next(samples) if entry.samples else None
            if self.sequences.get(sequence.request_id) is not sequence:
                continue
            sequence.num_computed_tokens = entry.start + entry.num_tokens
            if blocks := self.block_manager.seal(sequence):
                block_ids = tuple(sequence.block_table[blocks.start : blocks.stop])
                sealed.append(SealedBlocks(sequence=sequence, first_block=blocks.start, block_ids=block_ids))
            if sample is not None:
                tokens.append((sequence, sequence.num_output_tokens))
                status = self._append(sequence, sample)
                if status is not None:
                    self.remove(sequence.request_id, status)
                    finished.append(sequence)
        return StepResult(tokens=tuple(tokens), sealed=tuple(sealed), finished=tuple(finished))

    def _append(self, sequence: Sequence, sample: SampledToken) -> SequenceStatus | None:
        """How it has ended with that token, if it has."""
        output_token_ids, params = sequence.output_token_ids, sequence.sampling_params
        output_token_ids.append(sample.token_id)
        if sample.logprobs is not None:
            sequence.logprobs.append(sample.logprobs)
        return stop_status(output_token_ids, sequence.num_prompt_tokens, params, self._max_num_tokens)

    def _end_flight(self) -> None:
        """The step is over, or was given up: nothing writes to the blocks of what was removed meanwhile."""
        self._in_flight = ()
        self.block_manager.unpin(self._quarantine)
        self._quarantine = []

    # What others may know

    @property
    def sequences(self) -> dict[str, Sequence]:
        return self._roster.sequences

    @property
    def has_work(self) -> bool:
        """False, too, when the last schedule() found room for nobody and nothing has happened since."""
        has_any = bool(self._roster.waiting) or bool(self._roster.running)
        return has_any and self._blocked_at != self._state

    @property
    def _state(self) -> tuple[int, int]:
        return self._roster.num_changes, self.block_manager.num_free_blocks

    def is_in_flight(self, sequence: Sequence) -> bool:
        """Whether it is in the step between schedule() and update()."""
        return any(entry.sequence is sequence for entry in self._in_flight)

    @property
    def num_waiting(self) -> int:
        return len(self._roster.waiting)

    @property
    def has_preempted(self) -> bool:
        """Whether one that ran before waits for blocks: it goes before whatever is new."""
        head = self._roster.waiting.peek()
        return head is not None and head.status is SequenceStatus.PREEMPTED

    @property
    def num_running(self) -> int:
        """With the frozen among them."""
        return self._roster.num_running

    @property
    def num_waiting_tokens(self) -> int:
        """Tokens not computed yet, of the waiting and the running."""
        return self._roster.waiting.num_tokens + self._roster.running.num_uncomputed_tokens

    @property
    def num_reserved_blocks(self) -> int:
        return sum(len(sequence.block_table) for sequence in self._roster.reserved.values())

    @property
    def num_leaked_blocks(self) -> int:
        return self.block_manager.num_leaked_blocks(self.sequences.values())

    def check_integrity(self) -> None:
        """Asserts that every sequence is in exactly one place, and that the blocks agree."""
        self._roster.check_integrity()
        self.block_manager.check_integrity(self.sequences.values())
        assert self._roster.num_seated <= self.config.max_num_seqs, "more sequences hold blocks than there are seats"

    def _refuse_duplicate(self, sequence: Sequence) -> None:
        if sequence.request_id in self.sequences:
            raise ValueError(f"request_id {sequence.request_id!r} is here already")

    def _refuse_too_long(self, sequence: Sequence) -> None:
        if not self.can_ever_hold(sequence.num_tokens):
            capacity, max_model_len = self.block_manager.num_tokens, self.config.max_model_len
            raise ValueError(
                f"num_tokens {sequence.num_tokens} leaves no room for another: the KV capacity is {capacity} tokens, "
                f"max_model_len is {max_model_len}"
            )


def _next_chunk(sequence: Sequence, max_num_tokens: int) -> ScheduledSequence:
    start = sequence.num_computed_tokens
    num_left = sequence.num_tokens - start
    num_tokens = min(num_left, max_num_tokens)
    return ScheduledSequence(sequence=sequence, start=start, num_tokens=num_tokens, samples=num_tokens == num_left)
