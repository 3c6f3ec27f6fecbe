"""What one step is to compute, and what came of it."""

from dataclasses import dataclass

from cluster.engine.sequence import Sequence, TokenLogprobs


@dataclass(slots=True, kw_only=True)  # frozen ones take four times as long to make, in every step
class ScheduledSequence:
    """Compute tokens [start, start + num_tokens). `samples`: they are the last, and the next one is drawn."""

    sequence: Sequence
    start: int
    num_tokens: int
    samples: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerOutput:
    """`preempted` lost their blocks in this step, and wait."""

    scheduled: tuple[ScheduledSequence, ...]
    preempted: tuple[Sequence, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledToken:
    token_id: int
    logprobs: TokenLogprobs | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedBlocks:
    """Blocks [first_block, first_block + len(block_ids)) of the sequence are full; nothing writes to them again."""

    sequence: Sequence
    first_block: int
    block_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """`tokens` are (sequence, index of its new output token).

    The blocks of what finished are free already, but nobody gets them before the next `schedule()` or `reserve()`.
    """

    tokens: tuple[tuple[Sequence, int], ...] = ()
    sealed: tuple[SealedBlocks, ...] = ()
    finished: tuple[Sequence, ...] = ()
