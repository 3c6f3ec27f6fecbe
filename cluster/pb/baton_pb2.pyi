from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_STOP: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]
    FINISH_REASON_ABORT: _ClassVar[FinishReason]
    FINISH_REASON_ERROR: _ClassVar[FinishReason]
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_STOP: FinishReason
FINISH_REASON_LENGTH: FinishReason
FINISH_REASON_ABORT: FinishReason
FINISH_REASON_ERROR: FinishReason

class SetDispatchPolicyRequest(_message.Message):
    __slots__ = ("policy",)
    POLICY_FIELD_NUMBER: _ClassVar[int]
    policy: str
    def __init__(self, policy: _Optional[str] = ...) -> None: ...

class SetDispatchPolicyResponse(_message.Message):
    __slots__ = ("previous",)
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    previous: str
    def __init__(self, previous: _Optional[str] = ...) -> None: ...

class TokenIds(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ids: _Optional[_Iterable[int]] = ...) -> None: ...

class SamplingParams(_message.Message):
    __slots__ = ("temperature", "top_p", "top_k", "seed", "max_tokens", "stop", "stop_token_ids", "ignore_eos", "logprobs")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    STOP_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    IGNORE_EOS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_p: float
    top_k: int
    seed: int
    max_tokens: int
    stop: _containers.RepeatedScalarFieldContainer[str]
    stop_token_ids: _containers.RepeatedScalarFieldContainer[int]
    ignore_eos: bool
    logprobs: int
    def __init__(self, temperature: _Optional[float] = ..., top_p: _Optional[float] = ..., top_k: _Optional[int] = ..., seed: _Optional[int] = ..., max_tokens: _Optional[int] = ..., stop: _Optional[_Iterable[str]] = ..., stop_token_ids: _Optional[_Iterable[int]] = ..., ignore_eos: _Optional[bool] = ..., logprobs: _Optional[int] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("request_id", "text", "token_ids", "sampling_params", "priority", "timeout_s", "resumable")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_PARAMS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    RESUMABLE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    text: str
    token_ids: TokenIds
    sampling_params: SamplingParams
    priority: int
    timeout_s: float
    resumable: bool
    def __init__(self, request_id: _Optional[str] = ..., text: _Optional[str] = ..., token_ids: _Optional[_Union[TokenIds, _Mapping]] = ..., sampling_params: _Optional[_Union[SamplingParams, _Mapping]] = ..., priority: _Optional[int] = ..., timeout_s: _Optional[float] = ..., resumable: _Optional[bool] = ...) -> None: ...

class AttachRequest(_message.Message):
    __slots__ = ("request_id", "next_index", "tokens_hash", "stop", "request")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NEXT_INDEX_FIELD_NUMBER: _ClassVar[int]
    TOKENS_HASH_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    next_index: int
    tokens_hash: bytes
    stop: _containers.RepeatedScalarFieldContainer[str]
    request: GenerateRequest
    def __init__(self, request_id: _Optional[str] = ..., next_index: _Optional[int] = ..., tokens_hash: _Optional[bytes] = ..., stop: _Optional[_Iterable[str]] = ..., request: _Optional[_Union[GenerateRequest, _Mapping]] = ...) -> None: ...

class MigrateRequest(_message.Message):
    __slots__ = ("request_id", "instance")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    instance: str
    def __init__(self, request_id: _Optional[str] = ..., instance: _Optional[str] = ...) -> None: ...

class MigrateResponse(_message.Message):
    __slots__ = ("source", "target")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    source: str
    target: str
    def __init__(self, source: _Optional[str] = ..., target: _Optional[str] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("instance", "undo")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    UNDO_FIELD_NUMBER: _ClassVar[int]
    instance: str
    undo: bool
    def __init__(self, instance: _Optional[str] = ..., undo: _Optional[bool] = ...) -> None: ...

class FlipRequest(_message.Message):
    __slots__ = ("instance", "role")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    instance: str
    role: str
    def __init__(self, instance: _Optional[str] = ..., role: _Optional[str] = ...) -> None: ...

class DrainProgress(_message.Message):
    __slots__ = ("num_requests", "num_moved", "done")
    NUM_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    NUM_MOVED_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    num_requests: int
    num_moved: int
    done: bool
    def __init__(self, num_requests: _Optional[int] = ..., num_moved: _Optional[int] = ..., done: _Optional[bool] = ...) -> None: ...

class TraceRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class RequestTrace(_message.Message):
    __slots__ = ("request_id", "events")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    events: _containers.RepeatedCompositeFieldContainer[TraceEvent]
    def __init__(self, request_id: _Optional[str] = ..., events: _Optional[_Iterable[_Union[TraceEvent, _Mapping]]] = ...) -> None: ...

class TraceEvent(_message.Message):
    __slots__ = ("at_s", "event", "instance", "peer", "reason", "num_output_tokens")
    AT_S_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    NUM_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    at_s: float
    event: str
    instance: str
    peer: str
    reason: str
    num_output_tokens: int
    def __init__(self, at_s: _Optional[float] = ..., event: _Optional[str] = ..., instance: _Optional[str] = ..., peer: _Optional[str] = ..., reason: _Optional[str] = ..., num_output_tokens: _Optional[int] = ...) -> None: ...

class TokenLogprob(_message.Message):
    __slots__ = ("token_id", "logprob")
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    token_id: int
    logprob: float
    def __init__(self, token_id: _Optional[int] = ..., logprob: _Optional[float] = ...) -> None: ...

class Logprobs(_message.Message):
    __slots__ = ("logprob", "top")
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    logprob: float
    top: _containers.RepeatedCompositeFieldContainer[TokenLogprob]
    def __init__(self, logprob: _Optional[float] = ..., top: _Optional[_Iterable[_Union[TokenLogprob, _Mapping]]] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("num_prompt_tokens", "num_output_tokens", "num_cached_tokens")
    NUM_PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    num_prompt_tokens: int
    num_output_tokens: int
    num_cached_tokens: int
    def __init__(self, num_prompt_tokens: _Optional[int] = ..., num_output_tokens: _Optional[int] = ..., num_cached_tokens: _Optional[int] = ...) -> None: ...

class GenerateDelta(_message.Message):
    __slots__ = ("request_id", "index", "token_ids", "text", "logprobs", "finish_reason", "usage")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    index: int
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    text: str
    logprobs: _containers.RepeatedCompositeFieldContainer[Logprobs]
    finish_reason: FinishReason
    usage: Usage
    def __init__(self, request_id: _Optional[str] = ..., index: _Optional[int] = ..., token_ids: _Optional[_Iterable[int]] = ..., text: _Optional[str] = ..., logprobs: _Optional[_Iterable[_Union[Logprobs, _Mapping]]] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ...) -> None: ...

class AbortRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class AbortResponse(_message.Message):
    __slots__ = ("found",)
    FOUND_FIELD_NUMBER: _ClassVar[int]
    found: bool
    def __init__(self, found: _Optional[bool] = ...) -> None: ...

class GetModelInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ModelInfo(_message.Message):
    __slots__ = ("model", "architecture", "max_model_len", "vocab_size", "eos_token_ids")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    MAX_MODEL_LEN_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    EOS_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    model: str
    architecture: str
    max_model_len: int
    vocab_size: int
    eos_token_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, model: _Optional[str] = ..., architecture: _Optional[str] = ..., max_model_len: _Optional[int] = ..., vocab_size: _Optional[int] = ..., eos_token_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ClusterStatus(_message.Message):
    __slots__ = ("deployment", "model", "num_waiting_requests", "num_running_requests", "instances", "links", "term", "handovers", "node_links", "nodes")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    NUM_WAITING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    NUM_RUNNING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    LINKS_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    HANDOVERS_FIELD_NUMBER: _ClassVar[int]
    NODE_LINKS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    model: str
    num_waiting_requests: int
    num_running_requests: int
    instances: _containers.RepeatedCompositeFieldContainer[InstanceStatus]
    links: _containers.RepeatedCompositeFieldContainer[LinkStatus]
    term: int
    handovers: _containers.RepeatedCompositeFieldContainer[HandoverStatus]
    node_links: _containers.RepeatedCompositeFieldContainer[NodeLinkStatus]
    nodes: _containers.RepeatedCompositeFieldContainer[NodeStatus]
    def __init__(self, deployment: _Optional[str] = ..., model: _Optional[str] = ..., num_waiting_requests: _Optional[int] = ..., num_running_requests: _Optional[int] = ..., instances: _Optional[_Iterable[_Union[InstanceStatus, _Mapping]]] = ..., links: _Optional[_Iterable[_Union[LinkStatus, _Mapping]]] = ..., term: _Optional[int] = ..., handovers: _Optional[_Iterable[_Union[HandoverStatus, _Mapping]]] = ..., node_links: _Optional[_Iterable[_Union[NodeLinkStatus, _Mapping]]] = ..., nodes: _Optional[_Iterable[_Union[NodeStatus, _Mapping]]] = ...) -> None: ...

class ProbeRequest(_message.Message):
    __slots__ = ("budget_s",)
    BUDGET_S_FIELD_NUMBER: _ClassVar[int]
    budget_s: float
    def __init__(self, budget_s: _Optional[float] = ...) -> None: ...

class ProbeProgress(_message.Message):
    __slots__ = ("num_links", "num_done", "num_failed", "done", "links", "nodes")
    NUM_LINKS_FIELD_NUMBER: _ClassVar[int]
    NUM_DONE_FIELD_NUMBER: _ClassVar[int]
    NUM_FAILED_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    LINKS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    num_links: int
    num_done: int
    num_failed: int
    done: bool
    links: _containers.RepeatedCompositeFieldContainer[NodeLinkStatus]
    nodes: _containers.RepeatedCompositeFieldContainer[NodeStatus]
    def __init__(self, num_links: _Optional[int] = ..., num_done: _Optional[int] = ..., num_failed: _Optional[int] = ..., done: _Optional[bool] = ..., links: _Optional[_Iterable[_Union[NodeLinkStatus, _Mapping]]] = ..., nodes: _Optional[_Iterable[_Union[NodeStatus, _Mapping]]] = ...) -> None: ...

class NodeLinkStatus(_message.Message):
    __slots__ = ("source_node", "target_node", "transport", "alpha_s", "beta_bytes_per_s", "residual", "state", "num_samples", "age_s", "is_stale", "num_connections", "error")
    SOURCE_NODE_FIELD_NUMBER: _ClassVar[int]
    TARGET_NODE_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    ALPHA_S_FIELD_NUMBER: _ClassVar[int]
    BETA_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    RESIDUAL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    NUM_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    IS_STALE_FIELD_NUMBER: _ClassVar[int]
    NUM_CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    source_node: str
    target_node: str
    transport: str
    alpha_s: float
    beta_bytes_per_s: float
    residual: float
    state: str
    num_samples: int
    age_s: float
    is_stale: bool
    num_connections: int
    error: str
    def __init__(self, source_node: _Optional[str] = ..., target_node: _Optional[str] = ..., transport: _Optional[str] = ..., alpha_s: _Optional[float] = ..., beta_bytes_per_s: _Optional[float] = ..., residual: _Optional[float] = ..., state: _Optional[str] = ..., num_samples: _Optional[int] = ..., age_s: _Optional[float] = ..., is_stale: _Optional[bool] = ..., num_connections: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class NodeStatus(_message.Message):
    __slots__ = ("node", "group", "instances", "egress_bytes_per_s", "ingress_bytes_per_s", "num_gpus", "num_cpus", "memory_bytes", "gpu_memory_bytes", "num_known_links", "median_link_bytes_per_s")
    NODE_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    EGRESS_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    INGRESS_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    NUM_GPUS_FIELD_NUMBER: _ClassVar[int]
    NUM_CPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPU_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    NUM_KNOWN_LINKS_FIELD_NUMBER: _ClassVar[int]
    MEDIAN_LINK_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    node: str
    group: str
    instances: _containers.RepeatedScalarFieldContainer[str]
    egress_bytes_per_s: float
    ingress_bytes_per_s: float
    num_gpus: int
    num_cpus: float
    memory_bytes: int
    gpu_memory_bytes: int
    num_known_links: int
    median_link_bytes_per_s: float
    def __init__(self, node: _Optional[str] = ..., group: _Optional[str] = ..., instances: _Optional[_Iterable[str]] = ..., egress_bytes_per_s: _Optional[float] = ..., ingress_bytes_per_s: _Optional[float] = ..., num_gpus: _Optional[int] = ..., num_cpus: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., gpu_memory_bytes: _Optional[int] = ..., num_known_links: _Optional[int] = ..., median_link_bytes_per_s: _Optional[float] = ...) -> None: ...

class InstanceStatus(_message.Message):
    __slots__ = ("instance", "incarnation", "role", "status", "address", "num_waiting", "num_running", "num_sequences", "num_blocks", "num_free_blocks", "num_reserved_blocks", "num_leaked_blocks", "pid", "num_fenced", "num_bad_blocks", "num_unauthenticated", "num_malformed", "num_checksum_failures", "node")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    NUM_WAITING_FIELD_NUMBER: _ClassVar[int]
    NUM_RUNNING_FIELD_NUMBER: _ClassVar[int]
    NUM_SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    NUM_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    NUM_FREE_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    NUM_RESERVED_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    NUM_LEAKED_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    NUM_FENCED_FIELD_NUMBER: _ClassVar[int]
    NUM_BAD_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    NUM_UNAUTHENTICATED_FIELD_NUMBER: _ClassVar[int]
    NUM_MALFORMED_FIELD_NUMBER: _ClassVar[int]
    NUM_CHECKSUM_FAILURES_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    instance: str
    incarnation: int
    role: str
    status: str
    address: str
    num_waiting: int
    num_running: int
    num_sequences: int
    num_blocks: int
    num_free_blocks: int
    num_reserved_blocks: int
    num_leaked_blocks: int
    pid: int
    num_fenced: int
    num_bad_blocks: int
    num_unauthenticated: int
    num_malformed: int
    num_checksum_failures: int
    node: str
    def __init__(self, instance: _Optional[str] = ..., incarnation: _Optional[int] = ..., role: _Optional[str] = ..., status: _Optional[str] = ..., address: _Optional[str] = ..., num_waiting: _Optional[int] = ..., num_running: _Optional[int] = ..., num_sequences: _Optional[int] = ..., num_blocks: _Optional[int] = ..., num_free_blocks: _Optional[int] = ..., num_reserved_blocks: _Optional[int] = ..., num_leaked_blocks: _Optional[int] = ..., pid: _Optional[int] = ..., num_fenced: _Optional[int] = ..., num_bad_blocks: _Optional[int] = ..., num_unauthenticated: _Optional[int] = ..., num_malformed: _Optional[int] = ..., num_checksum_failures: _Optional[int] = ..., node: _Optional[str] = ...) -> None: ...

class HandoverStatus(_message.Message):
    __slots__ = ("request_id", "source", "target", "state", "stage", "num_blocks_sent", "num_blocks", "num_bytes")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    NUM_BLOCKS_SENT_FIELD_NUMBER: _ClassVar[int]
    NUM_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    source: str
    target: str
    state: str
    stage: int
    num_blocks_sent: int
    num_blocks: int
    num_bytes: int
    def __init__(self, request_id: _Optional[str] = ..., source: _Optional[str] = ..., target: _Optional[str] = ..., state: _Optional[str] = ..., stage: _Optional[int] = ..., num_blocks_sent: _Optional[int] = ..., num_blocks: _Optional[int] = ..., num_bytes: _Optional[int] = ...) -> None: ...

class LinkStatus(_message.Message):
    __slots__ = ("source", "target", "transport", "num_transfers", "num_bytes", "beta_bytes_per_s", "alpha_s", "num_failures", "note", "num_connections")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    NUM_TRANSFERS_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    BETA_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    ALPHA_S_FIELD_NUMBER: _ClassVar[int]
    NUM_FAILURES_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    NUM_CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    source: str
    target: str
    transport: str
    num_transfers: int
    num_bytes: int
    beta_bytes_per_s: float
    alpha_s: float
    num_failures: int
    note: str
    num_connections: int
    def __init__(self, source: _Optional[str] = ..., target: _Optional[str] = ..., transport: _Optional[str] = ..., num_transfers: _Optional[int] = ..., num_bytes: _Optional[int] = ..., beta_bytes_per_s: _Optional[float] = ..., alpha_s: _Optional[float] = ..., num_failures: _Optional[int] = ..., note: _Optional[str] = ..., num_connections: _Optional[int] = ...) -> None: ...
