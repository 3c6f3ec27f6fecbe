from cluster.pb import instance_pb2 as _instance_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RankFrame(_message.Message):
    __slots__ = ("hello", "challenge", "proof", "ready", "failed", "links_hello", "links_ready", "open", "opened", "close", "quiet", "seal", "send", "sent", "arrived", "bad", "room", "granted", "dropped")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    LINKS_HELLO_FIELD_NUMBER: _ClassVar[int]
    LINKS_READY_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    QUIET_FIELD_NUMBER: _ClassVar[int]
    SEAL_FIELD_NUMBER: _ClassVar[int]
    SEND_FIELD_NUMBER: _ClassVar[int]
    SENT_FIELD_NUMBER: _ClassVar[int]
    ARRIVED_FIELD_NUMBER: _ClassVar[int]
    BAD_FIELD_NUMBER: _ClassVar[int]
    ROOM_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    hello: RankHello
    challenge: _instance_pb2.Challenge
    proof: _instance_pb2.Proof
    ready: RankReady
    failed: RankFailed
    links_hello: LinksHello
    links_ready: LinksReady
    open: OpenSlots
    opened: Slots
    close: Slots
    quiet: Slots
    seal: SealBlocks
    send: SendBlocks
    sent: BlocksSent
    arrived: BlocksArrived
    bad: BlocksBad
    room: KvRoom
    granted: KvRoom
    dropped: Dropped
    def __init__(self, hello: _Optional[_Union[RankHello, _Mapping]] = ..., challenge: _Optional[_Union[_instance_pb2.Challenge, _Mapping]] = ..., proof: _Optional[_Union[_instance_pb2.Proof, _Mapping]] = ..., ready: _Optional[_Union[RankReady, _Mapping]] = ..., failed: _Optional[_Union[RankFailed, _Mapping]] = ..., links_hello: _Optional[_Union[LinksHello, _Mapping]] = ..., links_ready: _Optional[_Union[LinksReady, _Mapping]] = ..., open: _Optional[_Union[OpenSlots, _Mapping]] = ..., opened: _Optional[_Union[Slots, _Mapping]] = ..., close: _Optional[_Union[Slots, _Mapping]] = ..., quiet: _Optional[_Union[Slots, _Mapping]] = ..., seal: _Optional[_Union[SealBlocks, _Mapping]] = ..., send: _Optional[_Union[SendBlocks, _Mapping]] = ..., sent: _Optional[_Union[BlocksSent, _Mapping]] = ..., arrived: _Optional[_Union[BlocksArrived, _Mapping]] = ..., bad: _Optional[_Union[BlocksBad, _Mapping]] = ..., room: _Optional[_Union[KvRoom, _Mapping]] = ..., granted: _Optional[_Union[KvRoom, _Mapping]] = ..., dropped: _Optional[_Union[Dropped, _Mapping]] = ...) -> None: ...

class RankHello(_message.Message):
    __slots__ = ("rank", "world_size", "store_host", "store_port", "model_path", "dtype", "block_size", "num_blocks", "num_threads", "device", "max_num_seqs", "max_num_batched_tokens", "gpu_memory_utilization", "batch_invariant", "max_model_len", "instance", "weights_peers", "weights_piece_bytes", "weights_bytes_per_s", "nonce")
    RANK_FIELD_NUMBER: _ClassVar[int]
    WORLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    STORE_HOST_FIELD_NUMBER: _ClassVar[int]
    STORE_PORT_FIELD_NUMBER: _ClassVar[int]
    MODEL_PATH_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    NUM_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    NUM_THREADS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    MAX_NUM_SEQS_FIELD_NUMBER: _ClassVar[int]
    MAX_NUM_BATCHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    GPU_MEMORY_UTILIZATION_FIELD_NUMBER: _ClassVar[int]
    BATCH_INVARIANT_FIELD_NUMBER: _ClassVar[int]
    MAX_MODEL_LEN_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_PEERS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_PIECE_BYTES_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    rank: int
    world_size: int
    store_host: str
    store_port: int
    model_path: str
    dtype: str
    block_size: int
    num_blocks: int
    num_threads: int
    device: str
    max_num_seqs: int
    max_num_batched_tokens: int
    gpu_memory_utilization: float
    batch_invariant: bool
    max_model_len: int
    instance: str
    weights_peers: _containers.RepeatedCompositeFieldContainer[WeightsPeer]
    weights_piece_bytes: int
    weights_bytes_per_s: int
    nonce: bytes
    def __init__(self, rank: _Optional[int] = ..., world_size: _Optional[int] = ..., store_host: _Optional[str] = ..., store_port: _Optional[int] = ..., model_path: _Optional[str] = ..., dtype: _Optional[str] = ..., block_size: _Optional[int] = ..., num_blocks: _Optional[int] = ..., num_threads: _Optional[int] = ..., device: _Optional[str] = ..., max_num_seqs: _Optional[int] = ..., max_num_batched_tokens: _Optional[int] = ..., gpu_memory_utilization: _Optional[float] = ..., batch_invariant: _Optional[bool] = ..., max_model_len: _Optional[int] = ..., instance: _Optional[str] = ..., weights_peers: _Optional[_Iterable[_Union[WeightsPeer, _Mapping]]] = ..., weights_piece_bytes: _Optional[int] = ..., weights_bytes_per_s: _Optional[int] = ..., nonce: _Optional[bytes] = ...) -> None: ...

class WeightsPeer(_message.Message):
    __slots__ = ("name", "incarnation", "link_address")
    NAME_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    LINK_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    name: str
    incarnation: int
    link_address: str
    def __init__(self, name: _Optional[str] = ..., incarnation: _Optional[int] = ..., link_address: _Optional[str] = ...) -> None: ...

class RankReady(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RankFailed(_message.Message):
    __slots__ = ("problem",)
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    problem: str
    def __init__(self, problem: _Optional[str] = ...) -> None: ...

class KvRoom(_message.Message):
    __slots__ = ("num_blocks",)
    NUM_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    num_blocks: int
    def __init__(self, num_blocks: _Optional[int] = ...) -> None: ...

class LinksHello(_message.Message):
    __slots__ = ("holder", "transport", "checksum", "max_connections", "setup_timeout_s", "transfer_timeout_s", "nonce")
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    MAX_CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    SETUP_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    holder: _instance_pb2.Holder
    transport: str
    checksum: bool
    max_connections: int
    setup_timeout_s: float
    transfer_timeout_s: float
    nonce: bytes
    def __init__(self, holder: _Optional[_Union[_instance_pb2.Holder, _Mapping]] = ..., transport: _Optional[str] = ..., checksum: _Optional[bool] = ..., max_connections: _Optional[int] = ..., setup_timeout_s: _Optional[float] = ..., transfer_timeout_s: _Optional[float] = ..., nonce: _Optional[bytes] = ...) -> None: ...

class LinksReady(_message.Message):
    __slots__ = ("link_address",)
    LINK_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    link_address: str
    def __init__(self, link_address: _Optional[str] = ...) -> None: ...

class OpenSlots(_message.Message):
    __slots__ = ("reservation", "source", "epoch", "block_ids", "first_block")
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    BLOCK_IDS_FIELD_NUMBER: _ClassVar[int]
    FIRST_BLOCK_FIELD_NUMBER: _ClassVar[int]
    reservation: int
    source: _instance_pb2.Holder
    epoch: _instance_pb2.Epoch
    block_ids: _containers.RepeatedScalarFieldContainer[int]
    first_block: int
    def __init__(self, reservation: _Optional[int] = ..., source: _Optional[_Union[_instance_pb2.Holder, _Mapping]] = ..., epoch: _Optional[_Union[_instance_pb2.Epoch, _Mapping]] = ..., block_ids: _Optional[_Iterable[int]] = ..., first_block: _Optional[int] = ...) -> None: ...

class Slots(_message.Message):
    __slots__ = ("reservation",)
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    reservation: int
    def __init__(self, reservation: _Optional[int] = ...) -> None: ...

class SealBlocks(_message.Message):
    __slots__ = ("block_ids",)
    BLOCK_IDS_FIELD_NUMBER: _ClassVar[int]
    block_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, block_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class SendBlocks(_message.Message):
    __slots__ = ("number", "link_address", "receiver", "request_id", "epoch", "reservation", "first_block", "block_ids")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    LINK_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    RECEIVER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    FIRST_BLOCK_FIELD_NUMBER: _ClassVar[int]
    BLOCK_IDS_FIELD_NUMBER: _ClassVar[int]
    number: int
    link_address: str
    receiver: _instance_pb2.Holder
    request_id: str
    epoch: _instance_pb2.Epoch
    reservation: int
    first_block: int
    block_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, number: _Optional[int] = ..., link_address: _Optional[str] = ..., receiver: _Optional[_Union[_instance_pb2.Holder, _Mapping]] = ..., request_id: _Optional[str] = ..., epoch: _Optional[_Union[_instance_pb2.Epoch, _Mapping]] = ..., reservation: _Optional[int] = ..., first_block: _Optional[int] = ..., block_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class BlocksSent(_message.Message):
    __slots__ = ("number", "error", "links")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    LINKS_FIELD_NUMBER: _ClassVar[int]
    number: int
    error: str
    links: _containers.RepeatedCompositeFieldContainer[RankLinkStatus]
    def __init__(self, number: _Optional[int] = ..., error: _Optional[str] = ..., links: _Optional[_Iterable[_Union[RankLinkStatus, _Mapping]]] = ...) -> None: ...

class RankLinkStatus(_message.Message):
    __slots__ = ("source", "target", "source_rank", "target_rank", "transport", "note", "num_transfers", "num_bytes", "num_failures", "last_failure", "alpha_s", "beta_bytes_per_s", "num_connections")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    SOURCE_RANK_FIELD_NUMBER: _ClassVar[int]
    TARGET_RANK_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    NUM_TRANSFERS_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    NUM_FAILURES_FIELD_NUMBER: _ClassVar[int]
    LAST_FAILURE_FIELD_NUMBER: _ClassVar[int]
    ALPHA_S_FIELD_NUMBER: _ClassVar[int]
    BETA_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    NUM_CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    source: str
    target: str
    source_rank: int
    target_rank: int
    transport: str
    note: str
    num_transfers: int
    num_bytes: int
    num_failures: int
    last_failure: str
    alpha_s: float
    beta_bytes_per_s: float
    num_connections: int
    def __init__(self, source: _Optional[str] = ..., target: _Optional[str] = ..., source_rank: _Optional[int] = ..., target_rank: _Optional[int] = ..., transport: _Optional[str] = ..., note: _Optional[str] = ..., num_transfers: _Optional[int] = ..., num_bytes: _Optional[int] = ..., num_failures: _Optional[int] = ..., last_failure: _Optional[str] = ..., alpha_s: _Optional[float] = ..., beta_bytes_per_s: _Optional[float] = ..., num_connections: _Optional[int] = ...) -> None: ...

class BlocksArrived(_message.Message):
    __slots__ = ("reservation", "first_block", "count")
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    FIRST_BLOCK_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    reservation: int
    first_block: int
    count: int
    def __init__(self, reservation: _Optional[int] = ..., first_block: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class BlocksBad(_message.Message):
    __slots__ = ("reservation", "reason")
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    reservation: int
    reason: str
    def __init__(self, reservation: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Dropped(_message.Message):
    __slots__ = ("kind",)
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Dropped.Kind]
        KIND_DAMAGED: _ClassVar[Dropped.Kind]
        KIND_UNAUTHENTICATED: _ClassVar[Dropped.Kind]
        KIND_MALFORMED: _ClassVar[Dropped.Kind]
    KIND_UNSPECIFIED: Dropped.Kind
    KIND_DAMAGED: Dropped.Kind
    KIND_UNAUTHENTICATED: Dropped.Kind
    KIND_MALFORMED: Dropped.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    kind: Dropped.Kind
    def __init__(self, kind: _Optional[_Union[Dropped.Kind, str]] = ...) -> None: ...
