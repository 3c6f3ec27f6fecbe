"""What fronts, instances and their peers say to each other, as plain values.

`proto/instance.proto` is the same on the wire and `cluster/wire/` translates. The brain speaks only these.
Times that end in `_s` and are not durations are seconds of the speaker's own clock.
"""

from collections.abc import Sequence as List
from dataclasses import dataclass, field
from typing import NamedTuple

from cluster.engine.sampling_params import SamplingParams
from cluster.engine.sequence import FinishReason, TokenLogprobs
from cluster.role import InstanceRole


class Epoch(NamedTuple):
    """A turn at holding a request; minted by its ledger alone, each once, and only ever greater."""

    term: int
    n: int


class Holder(NamedTuple):
    """An instance in one of its lives: a restarted process has a new incarnation."""

    instance: str
    incarnation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The ledger's leave to take a request over: exactly this receiver, at exactly this epoch."""

    epoch: Epoch
    receiver: Holder
    address: str
    link_address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceState:
    """All there is to a request but its KV: who holds this can run it."""

    request_id: str
    front: str
    prompt_token_ids: List[int]
    output_token_ids: tuple[int, ...] = ()
    sampling_params: SamplingParams
    arrival_time_s: float
    deadline_s: float | None = None
    priority: int = 0
    logprobs: tuple[TokenLogprobs, ...] = ()
    num_cached_tokens: int = 0


# Front -> instance


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOver:
    """The request, which runs here at `epoch`, is to go on at the grant's receiver without standing still."""

    request_id: str
    epoch: Epoch
    grant: Grant


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRole:
    role: InstanceRole


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    state: SequenceState
    epoch: Epoch
    grant: Grant | None = None
    number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Let go of everything of this request up to `epoch`; what runs at a later one is left alone."""

    request_id: str
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseGrant:
    request_id: str
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class AckActivated:
    request_id: str
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class AckFinished:
    request_id: str
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class WantTokens:
    request_id: str
    epoch: Epoch
    next_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Measure the link to the target, for no longer than the budget; `Probed` answers with the same number."""

    number: int
    target: Holder
    link_address: str
    budget_s: float


FrontMessage = Dispatch | HandOver | SetRole | Stop | CloseGrant | AckActivated | AckFinished | WantTokens | Probe


# Instance -> front


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUpdate:
    """Output tokens [start_index, start_index + len(token_ids)); the finish reason rides with the last."""

    request_id: str
    epoch: Epoch
    start_index: int
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] = ()
    finish_reason: FinishReason | None = None
    num_cached_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepUpdate:
    """All tokens of one step that belong to a front, and the load of the instance then (as in `InstanceSnapshot`)."""

    updates: tuple[TokenUpdate, ...]
    num_waiting_tokens: int = 0
    num_dispatches_seen: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Activated:
    request_id: str
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantRefused:
    """`unreachable`: it was not the receiver's will; the way there is broken."""

    request_id: str
    epoch: Epoch
    reason: str
    unreachable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchRefused:
    """`may_run_elsewhere`: it did run here, until there was no memory for its step."""

    request_id: str
    epoch: Epoch
    reason: str
    may_run_elsewhere: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PassedOn:
    """The answer to a `CloseGrant` that comes too late: whoever died held the request, nobody has it now."""

    request_id: str
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A request that this instance holds, or has ended not long ago.

    `outranks`: no holder of an epoch up to this one may run it instead (its grant was refused or closed).
    `grant_epoch`: of the handover that is under way from here.
    """

    state: SequenceState
    epoch: Epoch
    outranks: Epoch
    grant_epoch: Epoch | None = None
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """The first word to a front: everything that an earlier life of it had here."""

    held: tuple[Held, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferSample:
    """A transfer that was timed, from its offer to the receiver's word that it is there; `ended_s`: when that came."""

    target: Holder
    transport: str
    num_bytes: int
    seconds: float
    ended_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What a `Probe` found before it was over or failed; `error`: why there is no more of it, or nothing."""

    number: int
    target: Holder
    transport: str = ""
    samples: tuple[TransferSample, ...] = ()
    num_connections: int = 1
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfers:
    """KV that was moved since the last of these."""

    samples: tuple[TransferSample, ...]


InstanceMessage = StepUpdate | Activated | GrantRefused | DispatchRefused | PassedOn | Holdings | Probed | Transfers


# Source -> receiver of a handover


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve:
    """Room for `num_tokens`; 0: for a request without KV, which waits for its blocks as any other does.

    `may_wait`: the answer may take until there is room; otherwise it comes at once.
    """

    request_id: str
    epoch: Epoch
    num_tokens: int
    block_hashes: tuple[bytes, ...] = ()
    lease_s: float
    may_wait: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """The baton. `num_reported_tokens`: of the output, how many the front has been sent."""

    request_id: str
    epoch: Epoch
    reservation: int
    num_blocks: int
    num_computed_tokens: int
    num_reported_tokens: int = 0
    state: SequenceState


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    request_id: str
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Renew:
    pass


SourceMessage = Reserve | Pass | Cancel | Renew


# Receiver -> source


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    request_id: str
    epoch: Epoch
    reservation: int
    num_cached_blocks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    request_id: str
    epoch: Epoch
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PassTaken:
    request_id: str
    epoch: Epoch


ReceiverMessage = Reserved | Refused | PassTaken


# Blocks, between an instance and its links


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTransfer:
    """Blocks [first_block, first_block + len(block_ids)) of a sequence, for a reservation elsewhere."""

    request_id: str
    epoch: Epoch
    reservation: int
    first_block: int
    block_ids: tuple[int, ...]
    checksums: tuple[int, ...] = field(repr=False)
