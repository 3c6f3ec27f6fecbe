from cluster.pb import baton_pb2 as _baton_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Epoch(_message.Message):
    __slots__ = ("term", "n")
    TERM_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    term: int
    n: int
    def __init__(self, term: _Optional[int] = ..., n: _Optional[int] = ...) -> None: ...

class Holder(_message.Message):
    __slots__ = ("instance", "incarnation")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    instance: str
    incarnation: int
    def __init__(self, instance: _Optional[str] = ..., incarnation: _Optional[int] = ...) -> None: ...

class Grant(_message.Message):
    __slots__ = ("epoch", "receiver", "address", "link_address")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    RECEIVER_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    LINK_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    epoch: Epoch
    receiver: Holder
    address: str
    link_address: str
    def __init__(self, epoch: _Optional[_Union[Epoch, _Mapping]] = ..., receiver: _Optional[_Union[Holder, _Mapping]] = ..., address: _Optional[str] = ..., link_address: _Optional[str] = ...) -> None: ...

class EngineSamplingParams(_message.Message):
    __slots__ = ("temperature", "top_p", "top_k", "seed", "max_tokens", "stop_token_ids", "logprobs")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STOP_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_p: float
    top_k: int
    seed: int
    max_tokens: int
    stop_token_ids: _containers.RepeatedScalarFieldContainer[int]
    logprobs: int
    def __init__(self, temperature: _Optional[float] = ..., top_p: _Optional[float] = ..., top_k: _Optional[int] = ..., seed: _Optional[int] = ..., max_tokens: _Optional[int] = ..., stop_token_ids: _Optional[_Iterable[int]] = ..., logprobs: _Optional[int] = ...) -> None: ...

class SequenceState(_message.Message):
    __slots__ = ("request_id", "front", "prompt_token_ids", "output_token_ids", "sampling_params", "age_s", "time_left_s", "priority", "logprobs", "num_cached_tokens")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    FRONT_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_PARAMS_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    TIME_LEFT_S_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    NUM_CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    front: str
    prompt_token_ids: _containers.RepeatedScalarFieldContainer[int]
    output_token_ids: _containers.RepeatedScalarFieldContainer[int]
    sampling_params: EngineSamplingParams
    age_s: float
    time_left_s: float
    priority: int
    logprobs: _containers.RepeatedCompositeFieldContainer[_baton_pb2.Logprobs]
    num_cached_tokens: int
    def __init__(self, request_id: _Optional[str] = ..., front: _Optional[str] = ..., prompt_token_ids: _Optional[_Iterable[int]] = ..., output_token_ids: _Optional[_Iterable[int]] = ..., sampling_params: _Optional[_Union[EngineSamplingParams, _Mapping]] = ..., age_s: _Optional[float] = ..., time_left_s: _Optional[float] = ..., priority: _Optional[int] = ..., logprobs: _Optional[_Iterable[_Union[_baton_pb2.Logprobs, _Mapping]]] = ..., num_cached_tokens: _Optional[int] = ...) -> None: ...

class Challenge(_message.Message):
    __slots__ = ("nonce", "proof")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    nonce: bytes
    proof: bytes
    def __init__(self, nonce: _Optional[bytes] = ..., proof: _Optional[bytes] = ...) -> None: ...

class Proof(_message.Message):
    __slots__ = ("proof",)
    PROOF_FIELD_NUMBER: _ClassVar[int]
    proof: bytes
    def __init__(self, proof: _Optional[bytes] = ...) -> None: ...

class FrontHello(_message.Message):
    __slots__ = ("front", "term", "instance", "nonce")
    FRONT_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    front: str
    term: int
    instance: Holder
    nonce: bytes
    def __init__(self, front: _Optional[str] = ..., term: _Optional[int] = ..., instance: _Optional[_Union[Holder, _Mapping]] = ..., nonce: _Optional[bytes] = ...) -> None: ...

class Dispatch(_message.Message):
    __slots__ = ("state", "epoch", "grant", "number")
    STATE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    state: SequenceState
    epoch: Epoch
    grant: Grant
    number: int
    def __init__(self, state: _Optional[_Union[SequenceState, _Mapping]] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ..., grant: _Optional[_Union[Grant, _Mapping]] = ..., number: _Optional[int] = ...) -> None: ...

class HandOver(_message.Message):
    __slots__ = ("request_id", "epoch", "grant")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    epoch: Epoch
    grant: Grant
    def __init__(self, request_id: _Optional[str] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ..., grant: _Optional[_Union[Grant, _Mapping]] = ...) -> None: ...

class SetRole(_message.Message):
    __slots__ = ("role",)
    ROLE_FIELD_NUMBER: _ClassVar[int]
    role: str
    def __init__(self, role: _Optional[str] = ...) -> None: ...

class Stop(_message.Message):
    __slots__ = ("request_id", "epoch")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    epoch: Epoch
    def __init__(self, request_id: _Optional[str] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ...) -> None: ...

class CloseGrant(_message.Message):
    __slots__ = ("request_id", "epoch")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    epoch: Epoch
    def __init__(self, request_id: _Optional[str] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ...) -> None: ...

class AckActivated(_message.Message):
    __slots__ = ("request_id", "epoch")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    epoch: Epoch
    def __init__(self, request_id: _Optional[str] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ...) -> None: ...

class AckFinished(_message.Message):
    __slots__ = ("request_id", "epoch")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    epoch: Epoch
    def __init__(self, request_id: _Optional[str] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ...) -> None: ...

class WantTokens(_message.Message):
    __slots__ = ("request_id", "epoch", "next_index")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NEXT_INDEX_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    epoch: Epoch
    next_index: int
    def __init__(self, request_id: _Optional[str] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ..., next_index: _Optional[int] = ...) -> None: ...

class Probe(_message.Message):
    __slots__ = ("number", "target", "link_address", "budget_s")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    LINK_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    BUDGET_S_FIELD_NUMBER: _ClassVar[int]
    number: int
    target: Holder
    link_address: str
    budget_s: float
    def __init__(self, number: _Optional[int] = ..., target: _Optional[_Union[Holder, _Mapping]] = ..., link_address: _Optional[str] = ..., budget_s: _Optional[float] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FrontMessage(_message.Message):
    __slots__ = ("hello", "dispatch", "stop", "close_grant", "ack_activated", "ack_finished", "want_tokens", "heartbeat", "hand_over", "set_role", "probe", "proof")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    DISPATCH_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    CLOSE_GRANT_FIELD_NUMBER: _ClassVar[int]
    ACK_ACTIVATED_FIELD_NUMBER: _ClassVar[int]
    ACK_FINISHED_FIELD_NUMBER: _ClassVar[int]
    WANT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    HAND_OVER_FIELD_NUMBER: _ClassVar[int]
    SET_ROLE_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    hello: FrontHello
    dispatch: Dispatch
    stop: Stop
    close_grant: CloseGrant
    ack_activated: AckActivated
    ack_finished: AckFinished
    want_tokens: WantTokens
    heartbeat: Heartbeat
    hand_over: HandOver
    set_role: SetRole
    probe: Probe
    proof: Proof
    def __init__(self, hello: _Optional[_Union[FrontHello, _Mapping]] = ..., dispatch: _Optional[_Union[Dispatch, _Mapping]] = ..., stop: _Optional[_Union[Stop, _Mapping]] = ..., close_grant: _Optional[_Union[CloseGrant, _Mapping]] = ..., ack_activated: _Optional[_Union[AckActivated, _Mapping]] = ..., ack_finished: _Optional[_Union[AckFinished, _Mapping]] = ..., want_tokens: _Optional[_Union[WantTokens, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., hand_over: _Optional[_Union[HandOver, _Mapping]] = ..., set_role: _Optional[_Union[SetRole, _Mapping]] = ..., probe: _Optional[_Union[Probe, _Mapping]] = ..., proof: _Optional[_Union[Proof, _Mapping]] = ...) -> None: ...

class InstanceHello(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TokenUpdate(_message.Message):
    __slots__ = ("request_id", "epoch", "start_index", "token_ids", "logprobs", "finish_reason", "num_cached_tokens")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    START_INDEX_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    NUM_CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    epoch: Epoch
    start_index: int
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    logprobs: _containers.RepeatedCompositeFieldContainer[_baton_pb2.Logprobs]
    finish_reason: _baton_pb2.FinishReason
    num_cached_tokens: int
    def __init__(self, request_id: _Optional[str] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ..., start_index: _Optional[int] = ..., token_ids: _Optional[_Iterable[int]] = ..., logprobs: _Optional[_Iterable[_Union[_baton_pb2.Logprobs, _Mapping]]] = ..., finish_reason: _Optional[_Union[_baton_pb2.FinishReason, str]] = ..., num_cached_tokens: _Optional[int] = ...) -> None: ...

class StepUpdate(_message.Message):
    __slots__ = ("updates", "num_waiting_tokens", "num_dispatches_seen")
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    NUM_WAITING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_DISPATCHES_SEEN_FIELD_NUMBER: _ClassVar[int]
    updates: _containers.RepeatedCompositeFieldContainer[TokenUpdate]
    num_waiting_tokens: int
    num_dispatches_seen: int
    def __init__(self, updates: _Optional[_Iterable[_Union[TokenUpdate, _Mapping]]] = ..., num_waiting_tokens: _Optional[int] = ..., num_dispatches_seen: _Optional[int] = ...) -> None: ...

class Activated(_message.Message):
    __slots__ = ("request_id", "epoch")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    epoch: Epoch
    def __init__(self, request_id: _Optional[str] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ...) -> None: ...

class GrantRefused(_message.Message):
    __slots__ = ("request_id", "epoch", "reason", "unreachable")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    UNREACHABLE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    epoch: Epoch
    reason: str
    unreachable: bool
    def __init__(self, request_id: _Optional[str] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ..., reason: _Optional[str] = ..., unreachable: _Optional[bool] = ...) -> None: ...

class DispatchRefused(_message.Message):
    __slots__ = ("request_id", "epoch", "reason", "may_run_elsewhere")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MAY_RUN_ELSEWHERE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    epoch: Epoch
    reason: str
    may_run_elsewhere: bool
    def __init__(self, request_id: _Optional[str] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ..., reason: _Optional[str] = ..., may_run_elsewhere: _Optional[bool] = ...) -> None: ...

class PassedOn(_message.Message):
    __slots__ = ("request_id", "epoch")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    epoch: Epoch
    def __init__(self, request_id: _Optional[str] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ...) -> None: ...

class Held(_message.Message):
    __slots__ = ("state", "epoch", "outranks", "grant_epoch", "finish_reason")
    STATE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    OUTRANKS_FIELD_NUMBER: _ClassVar[int]
    GRANT_EPOCH_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    state: SequenceState
    epoch: Epoch
    outranks: Epoch
    grant_epoch: Epoch
    finish_reason: _baton_pb2.FinishReason
    def __init__(self, state: _Optional[_Union[SequenceState, _Mapping]] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ..., outranks: _Optional[_Union[Epoch, _Mapping]] = ..., grant_epoch: _Optional[_Union[Epoch, _Mapping]] = ..., finish_reason: _Optional[_Union[_baton_pb2.FinishReason, str]] = ...) -> None: ...

class Holdings(_message.Message):
    __slots__ = ("held",)
    HELD_FIELD_NUMBER: _ClassVar[int]
    held: _containers.RepeatedCompositeFieldContainer[Held]
    def __init__(self, held: _Optional[_Iterable[_Union[Held, _Mapping]]] = ...) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("instance", "role", "status", "num_waiting", "num_running", "num_sequences", "num_blocks", "num_free_blocks", "num_reserved_blocks", "num_leaked_blocks", "num_waiting_tokens", "num_dispatches_seen", "links", "handovers", "num_fenced", "num_bad_blocks", "num_unauthenticated", "num_malformed", "num_checksum_failures", "prefill_tokens_per_s", "decode_step_s")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    NUM_WAITING_FIELD_NUMBER: _ClassVar[int]
    NUM_RUNNING_FIELD_NUMBER: _ClassVar[int]
    NUM_SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    NUM_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    NUM_FREE_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    NUM_RESERVED_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    NUM_LEAKED_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    NUM_WAITING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_DISPATCHES_SEEN_FIELD_NUMBER: _ClassVar[int]
    LINKS_FIELD_NUMBER: _ClassVar[int]
    HANDOVERS_FIELD_NUMBER: _ClassVar[int]
    NUM_FENCED_FIELD_NUMBER: _ClassVar[int]
    NUM_BAD_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    NUM_UNAUTHENTICATED_FIELD_NUMBER: _ClassVar[int]
    NUM_MALFORMED_FIELD_NUMBER: _ClassVar[int]
    NUM_CHECKSUM_FAILURES_FIELD_NUMBER: _ClassVar[int]
    PREFILL_TOKENS_PER_S_FIELD_NUMBER: _ClassVar[int]
    DECODE_STEP_S_FIELD_NUMBER: _ClassVar[int]
    instance: Holder
    role: str
    status: str
    num_waiting: int
    num_running: int
    num_sequences: int
    num_blocks: int
    num_free_blocks: int
    num_reserved_blocks: int
    num_leaked_blocks: int
    num_waiting_tokens: int
    num_dispatches_seen: int
    links: _containers.RepeatedCompositeFieldContainer[_baton_pb2.LinkStatus]
    handovers: _containers.RepeatedCompositeFieldContainer[_baton_pb2.HandoverStatus]
    num_fenced: int
    num_bad_blocks: int
    num_unauthenticated: int
    num_malformed: int
    num_checksum_failures: int
    prefill_tokens_per_s: float
    decode_step_s: float
    def __init__(self, instance: _Optional[_Union[Holder, _Mapping]] = ..., role: _Optional[str] = ..., status: _Optional[str] = ..., num_waiting: _Optional[int] = ..., num_running: _Optional[int] = ..., num_sequences: _Optional[int] = ..., num_blocks: _Optional[int] = ..., num_free_blocks: _Optional[int] = ..., num_reserved_blocks: _Optional[int] = ..., num_leaked_blocks: _Optional[int] = ..., num_waiting_tokens: _Optional[int] = ..., num_dispatches_seen: _Optional[int] = ..., links: _Optional[_Iterable[_Union[_baton_pb2.LinkStatus, _Mapping]]] = ..., handovers: _Optional[_Iterable[_Union[_baton_pb2.HandoverStatus, _Mapping]]] = ..., num_fenced: _Optional[int] = ..., num_bad_blocks: _Optional[int] = ..., num_unauthenticated: _Optional[int] = ..., num_malformed: _Optional[int] = ..., num_checksum_failures: _Optional[int] = ..., prefill_tokens_per_s: _Optional[float] = ..., decode_step_s: _Optional[float] = ...) -> None: ...

class TransferSample(_message.Message):
    __slots__ = ("target", "transport", "num_bytes", "seconds", "ended_ago_s")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    ENDED_AGO_S_FIELD_NUMBER: _ClassVar[int]
    target: Holder
    transport: str
    num_bytes: int
    seconds: float
    ended_ago_s: float
    def __init__(self, target: _Optional[_Union[Holder, _Mapping]] = ..., transport: _Optional[str] = ..., num_bytes: _Optional[int] = ..., seconds: _Optional[float] = ..., ended_ago_s: _Optional[float] = ...) -> None: ...

class Probed(_message.Message):
    __slots__ = ("number", "target", "transport", "samples", "num_connections", "error")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    NUM_CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    number: int
    target: Holder
    transport: str
    samples: _containers.RepeatedCompositeFieldContainer[TransferSample]
    num_connections: int
    error: str
    def __init__(self, number: _Optional[int] = ..., target: _Optional[_Union[Holder, _Mapping]] = ..., transport: _Optional[str] = ..., samples: _Optional[_Iterable[_Union[TransferSample, _Mapping]]] = ..., num_connections: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class Transfers(_message.Message):
    __slots__ = ("samples",)
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    samples: _containers.RepeatedCompositeFieldContainer[TransferSample]
    def __init__(self, samples: _Optional[_Iterable[_Union[TransferSample, _Mapping]]] = ...) -> None: ...

class InstanceMessage(_message.Message):
    __slots__ = ("hello", "step", "activated", "grant_refused", "dispatch_refused", "snapshot", "passed_on", "holdings", "heartbeat", "probed", "transfers", "challenge")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    ACTIVATED_FIELD_NUMBER: _ClassVar[int]
    GRANT_REFUSED_FIELD_NUMBER: _ClassVar[int]
    DISPATCH_REFUSED_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    PASSED_ON_FIELD_NUMBER: _ClassVar[int]
    HOLDINGS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    PROBED_FIELD_NUMBER: _ClassVar[int]
    TRANSFERS_FIELD_NUMBER: _ClassVar[int]
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    hello: InstanceHello
    step: StepUpdate
    activated: Activated
    grant_refused: GrantRefused
    dispatch_refused: DispatchRefused
    snapshot: Snapshot
    passed_on: PassedOn
    holdings: Holdings
    heartbeat: Heartbeat
    probed: Probed
    transfers: Transfers
    challenge: Challenge
    def __init__(self, hello: _Optional[_Union[InstanceHello, _Mapping]] = ..., step: _Optional[_Union[StepUpdate, _Mapping]] = ..., activated: _Optional[_Union[Activated, _Mapping]] = ..., grant_refused: _Optional[_Union[GrantRefused, _Mapping]] = ..., dispatch_refused: _Optional[_Union[DispatchRefused, _Mapping]] = ..., snapshot: _Optional[_Union[Snapshot, _Mapping]] = ..., passed_on: _Optional[_Union[PassedOn, _Mapping]] = ..., holdings: _Optional[_Union[Holdings, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., probed: _Optional[_Union[Probed, _Mapping]] = ..., transfers: _Optional[_Union[Transfers, _Mapping]] = ..., challenge: _Optional[_Union[Challenge, _Mapping]] = ...) -> None: ...

class PeerHello(_message.Message):
    __slots__ = ("source", "receiver", "nonce")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    RECEIVER_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    source: Holder
    receiver: Holder
    nonce: bytes
    def __init__(self, source: _Optional[_Union[Holder, _Mapping]] = ..., receiver: _Optional[_Union[Holder, _Mapping]] = ..., nonce: _Optional[bytes] = ...) -> None: ...

class Reserve(_message.Message):
    __slots__ = ("request_id", "epoch", "num_tokens", "block_hashes", "lease_s", "may_wait")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_HASHES_FIELD_NUMBER: _ClassVar[int]
    LEASE_S_FIELD_NUMBER: _ClassVar[int]
    MAY_WAIT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    epoch: Epoch
    num_tokens: int
    block_hashes: _containers.RepeatedScalarFieldContainer[bytes]
    lease_s: float
    may_wait: bool
    def __init__(self, request_id: _Optional[str] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ..., num_tokens: _Optional[int] = ..., block_hashes: _Optional[_Iterable[bytes]] = ..., lease_s: _Optional[float] = ..., may_wait: _Optional[bool] = ...) -> None: ...

class Pass(_message.Message):
    __slots__ = ("request_id", "epoch", "reservation", "num_blocks", "num_computed_tokens", "state", "num_reported_tokens")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    NUM_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    NUM_COMPUTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    NUM_REPORTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    epoch: Epoch
    reservation: int
    num_blocks: int
    num_computed_tokens: int
    state: SequenceState
    num_reported_tokens: int
    def __init__(self, request_id: _Optional[str] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ..., reservation: _Optional[int] = ..., num_blocks: _Optional[int] = ..., num_computed_tokens: _Optional[int] = ..., state: _Optional[_Union[SequenceState, _Mapping]] = ..., num_reported_tokens: _Optional[int] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("request_id", "epoch")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    epoch: Epoch
    def __init__(self, request_id: _Optional[str] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ...) -> None: ...

class Renew(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SourceMessage(_message.Message):
    __slots__ = ("hello", "reserve", "cancel", "renew", "proof")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    RESERVE_FIELD_NUMBER: _ClassVar[int]
    PASS_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    RENEW_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    hello: PeerHello
    reserve: Reserve
    cancel: Cancel
    renew: Renew
    proof: Proof
    def __init__(self, hello: _Optional[_Union[PeerHello, _Mapping]] = ..., reserve: _Optional[_Union[Reserve, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., renew: _Optional[_Union[Renew, _Mapping]] = ..., proof: _Optional[_Union[Proof, _Mapping]] = ..., **kwargs) -> None: ...

class Reserved(_message.Message):
    __slots__ = ("request_id", "epoch", "reservation", "num_cached_blocks")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    NUM_CACHED_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    epoch: Epoch
    reservation: int
    num_cached_blocks: int
    def __init__(self, request_id: _Optional[str] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ..., reservation: _Optional[int] = ..., num_cached_blocks: _Optional[int] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("request_id", "epoch", "reason")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    epoch: Epoch
    reason: str
    def __init__(self, request_id: _Optional[str] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class PassTaken(_message.Message):
    __slots__ = ("request_id", "epoch")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    epoch: Epoch
    def __init__(self, request_id: _Optional[str] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ...) -> None: ...

class ReceiverMessage(_message.Message):
    __slots__ = ("reserved", "refused", "pass_taken", "challenge")
    RESERVED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    PASS_TAKEN_FIELD_NUMBER: _ClassVar[int]
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    reserved: Reserved
    refused: Refused
    pass_taken: PassTaken
    challenge: Challenge
    def __init__(self, reserved: _Optional[_Union[Reserved, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ..., pass_taken: _Optional[_Union[PassTaken, _Mapping]] = ..., challenge: _Optional[_Union[Challenge, _Mapping]] = ...) -> None: ...
