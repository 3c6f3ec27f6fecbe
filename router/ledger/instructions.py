"""What the ledger wants done."""

from dataclasses import dataclass
from enum import Enum

from cluster.engine.sequence import FinishReason, TokenLogprobs
from cluster.messages import FrontMessage, Holder, SequenceState


class Failure(Enum):
    """Why a request ended without its last token."""

    INSTANCE_LOST = "instance lost"
    DISPATCH_REFUSED = "dispatch refused"
    DEADLINE_EXCEEDED = "deadline exceeded"
    ABORTED = "aborted"
    NO_INSTANCE = "no instance"


@dataclass(frozen=True, slots=True)
class Tell:
    holder: Holder
    message: FrontMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliver:
    """New tokens for the client: exactly the next ones."""

    request_id: str
    start_index: int
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...]
    finish_reason: FinishReason | None
    num_cached_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    request_id: str
    failure: Failure
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeue:
    """Its owner is lost: it waits to be dispatched again, with `num_tokens` to be computed."""

    request_id: str
    num_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopt:
    """An earlier life of this front had it; `holder` runs it on, or has its end. Its tokens follow in a `Deliver`."""

    state: SequenceState
    holder: Holder


class Step(Enum):
    """What happens to a request on its way."""

    DISPATCHED = "dispatched"
    GRANTED = "granted"
    PASSED = "passed"
    KEPT = "kept"
    RECOVERING = "recovering"
    ADOPTED = "adopted"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """For the request's trace and the metrics: `holder` has it, `peer` is the other side of a handover.

    `reason` is the handover's (prefill, migrate, balance, drain, flip) for GRANTED and PASSED, and why for the others.
    """

    request_id: str
    step: Step
    holder: Holder | None
    peer: Holder | None = None
    reason: str = ""
    unreachable: bool = False
    num_output_tokens: int = 0


Instruction = Tell | Deliver | Fail | Requeue | Adopt | Note


@dataclass(frozen=True, slots=True)
class Place:
    """An instance to be dispatched to, and where it is reached."""

    holder: Holder
    address: str
    link_address: str
