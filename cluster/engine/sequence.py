"""A request as an engine sees it: its tokens, how many of them have KV, and the blocks that hold it."""

from collections.abc import Sequence as List
from dataclasses import dataclass, field
from enum import Enum, auto

from cluster.engine.sampling_params import SamplingParams


class SequenceStatus(Enum):
    WAITING = auto()
    WAITING_FOR_REMOTE_KVS = auto()
    RUNNING = auto()
    PREEMPTED = auto()
    FINISHED_STOPPED = auto()
    FINISHED_LENGTH_CAPPED = auto()
    FINISHED_ABORTED = auto()
    FINISHED_ERROR = auto()

    @property
    def is_finished(self) -> bool:
        return self.value >= SequenceStatus.FINISHED_STOPPED.value


class FinishReason(Enum):
    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"


FINISH_REASONS = {
    SequenceStatus.FINISHED_STOPPED: FinishReason.STOP,
    SequenceStatus.FINISHED_LENGTH_CAPPED: FinishReason.LENGTH,
    SequenceStatus.FINISHED_ABORTED: FinishReason.ABORT,
    SequenceStatus.FINISHED_ERROR: FinishReason.ERROR,
}


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """The chosen token's log probability and those of the best ones, best first."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    """`num_computed_tokens` catches up with `num_tokens`; when it has, the next token can be sampled.

    `block_hashes` names the sealed blocks, which lead the table; `known_hashes` is the same chain, as far as it was
    ever computed. `admission_number` is given by the scheduler, and breaks ties.
    """

    request_id: str
    prompt_token_ids: List[int]
    sampling_params: SamplingParams
    arrival_time_s: float
    deadline_s: float | None = None
    priority: int = 0
    output_token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    status: SequenceStatus = SequenceStatus.WAITING
    num_computed_tokens: int = 0
    num_cached_tokens: int = 0
    block_table: list[int] = field(default_factory=list)
    block_hashes: list[bytes] = field(default_factory=list)
    known_hashes: list[bytes] = field(default_factory=list)
    admission_number: int = 0

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.prompt_token_ids)

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_token_ids) + len(self.output_token_ids)

    @property
    def num_output_tokens(self) -> int:
        return len(self.output_token_ids)

    @property
    def is_finished(self) -> bool:
        return self.status.is_finished

    def token_ids(self, start: int, end: int) -> list[int]:
        """Tokens [start, end) of prompt and output together."""
        num_prompt = len(self.prompt_token_ids)
        if end <= num_prompt:
            return list(self.prompt_token_ids[start:end])
        if start >= num_prompt:
            return self.output_token_ids[start - num_prompt : end - num_prompt]
        return [*self.prompt_token_ids[start:], *self.output_token_ids[: end - num_prompt]]
