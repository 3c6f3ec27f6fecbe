from cluster.pb import instance_pb2 as _instance_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LinkHello(_message.Message):
    __slots__ = ("source", "receiver", "source_rank", "receiver_rank", "source_num_ranks", "receiver_num_ranks", "host", "region_path", "region_bytes", "record_bytes", "transport", "on_device", "kv_dtype", "joins", "nonce")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    RECEIVER_FIELD_NUMBER: _ClassVar[int]
    SOURCE_RANK_FIELD_NUMBER: _ClassVar[int]
    RECEIVER_RANK_FIELD_NUMBER: _ClassVar[int]
    SOURCE_NUM_RANKS_FIELD_NUMBER: _ClassVar[int]
    RECEIVER_NUM_RANKS_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    REGION_PATH_FIELD_NUMBER: _ClassVar[int]
    REGION_BYTES_FIELD_NUMBER: _ClassVar[int]
    RECORD_BYTES_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    ON_DEVICE_FIELD_NUMBER: _ClassVar[int]
    KV_DTYPE_FIELD_NUMBER: _ClassVar[int]
    JOINS_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    source: _instance_pb2.Holder
    receiver: _instance_pb2.Holder
    source_rank: int
    receiver_rank: int
    source_num_ranks: int
    receiver_num_ranks: int
    host: str
    region_path: str
    region_bytes: int
    record_bytes: int
    transport: str
    on_device: bool
    kv_dtype: str
    joins: bytes
    nonce: bytes
    def __init__(self, source: _Optional[_Union[_instance_pb2.Holder, _Mapping]] = ..., receiver: _Optional[_Union[_instance_pb2.Holder, _Mapping]] = ..., source_rank: _Optional[int] = ..., receiver_rank: _Optional[int] = ..., source_num_ranks: _Optional[int] = ..., receiver_num_ranks: _Optional[int] = ..., host: _Optional[str] = ..., region_path: _Optional[str] = ..., region_bytes: _Optional[int] = ..., record_bytes: _Optional[int] = ..., transport: _Optional[str] = ..., on_device: _Optional[bool] = ..., kv_dtype: _Optional[str] = ..., joins: _Optional[bytes] = ..., nonce: _Optional[bytes] = ...) -> None: ...

class LinkWelcome(_message.Message):
    __slots__ = ("transport", "error", "note", "link_id")
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    LINK_ID_FIELD_NUMBER: _ClassVar[int]
    transport: str
    error: str
    note: str
    link_id: bytes
    def __init__(self, transport: _Optional[str] = ..., error: _Optional[str] = ..., note: _Optional[str] = ..., link_id: _Optional[bytes] = ...) -> None: ...

class Offer(_message.Message):
    __slots__ = ("slot", "reservation", "epoch", "first_block", "block_ids", "checksums", "valid_until_ns", "communicator", "num_connections")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    FIRST_BLOCK_FIELD_NUMBER: _ClassVar[int]
    BLOCK_IDS_FIELD_NUMBER: _ClassVar[int]
    CHECKSUMS_FIELD_NUMBER: _ClassVar[int]
    VALID_UNTIL_NS_FIELD_NUMBER: _ClassVar[int]
    COMMUNICATOR_FIELD_NUMBER: _ClassVar[int]
    NUM_CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    slot: int
    reservation: int
    epoch: _instance_pb2.Epoch
    first_block: int
    block_ids: _containers.RepeatedScalarFieldContainer[int]
    checksums: _containers.RepeatedScalarFieldContainer[int]
    valid_until_ns: int
    communicator: int
    num_connections: int
    def __init__(self, slot: _Optional[int] = ..., reservation: _Optional[int] = ..., epoch: _Optional[_Union[_instance_pb2.Epoch, _Mapping]] = ..., first_block: _Optional[int] = ..., block_ids: _Optional[_Iterable[int]] = ..., checksums: _Optional[_Iterable[int]] = ..., valid_until_ns: _Optional[int] = ..., communicator: _Optional[int] = ..., num_connections: _Optional[int] = ...) -> None: ...

class ProbeOffer(_message.Message):
    __slots__ = ("slot", "num_bytes", "communicator", "num_connections", "num_kept")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    COMMUNICATOR_FIELD_NUMBER: _ClassVar[int]
    NUM_CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    NUM_KEPT_FIELD_NUMBER: _ClassVar[int]
    slot: int
    num_bytes: int
    communicator: int
    num_connections: int
    num_kept: int
    def __init__(self, slot: _Optional[int] = ..., num_bytes: _Optional[int] = ..., communicator: _Optional[int] = ..., num_connections: _Optional[int] = ..., num_kept: _Optional[int] = ...) -> None: ...

class Post(_message.Message):
    __slots__ = ("slot", "communicator", "unique_id", "message_blocks")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    COMMUNICATOR_FIELD_NUMBER: _ClassVar[int]
    UNIQUE_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    slot: int
    communicator: int
    unique_id: bytes
    message_blocks: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, slot: _Optional[int] = ..., communicator: _Optional[int] = ..., unique_id: _Optional[bytes] = ..., message_blocks: _Optional[_Iterable[int]] = ...) -> None: ...

class Done(_message.Message):
    __slots__ = ("slot", "error")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    slot: int
    error: str
    def __init__(self, slot: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class WeightsHello(_message.Message):
    __slots__ = ("caller", "asked", "model", "dtype", "rank", "num_ranks", "nonce")
    CALLER_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    NUM_RANKS_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    caller: str
    asked: _instance_pb2.Holder
    model: str
    dtype: str
    rank: int
    num_ranks: int
    nonce: bytes
    def __init__(self, caller: _Optional[str] = ..., asked: _Optional[_Union[_instance_pb2.Holder, _Mapping]] = ..., model: _Optional[str] = ..., dtype: _Optional[str] = ..., rank: _Optional[int] = ..., num_ranks: _Optional[int] = ..., nonce: _Optional[bytes] = ...) -> None: ...

class WeightsTensor(_message.Message):
    __slots__ = ("name", "shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class WeightsIndex(_message.Message):
    __slots__ = ("error", "tensors")
    ERROR_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    error: str
    tensors: _containers.RepeatedCompositeFieldContainer[WeightsTensor]
    def __init__(self, error: _Optional[str] = ..., tensors: _Optional[_Iterable[_Union[WeightsTensor, _Mapping]]] = ...) -> None: ...

class WeightsAsk(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class WeightsSent(_message.Message):
    __slots__ = ("name", "checksum")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    name: str
    checksum: int
    def __init__(self, name: _Optional[str] = ..., checksum: _Optional[int] = ...) -> None: ...

class LinkFrame(_message.Message):
    __slots__ = ("hello", "welcome", "offer", "post", "done", "probe", "weights_hello", "weights_index", "weights_ask", "weights_sent", "challenge", "proof")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    OFFER_FIELD_NUMBER: _ClassVar[int]
    POST_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_HELLO_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_INDEX_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_ASK_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SENT_FIELD_NUMBER: _ClassVar[int]
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    hello: LinkHello
    welcome: LinkWelcome
    offer: Offer
    post: Post
    done: Done
    probe: ProbeOffer
    weights_hello: WeightsHello
    weights_index: WeightsIndex
    weights_ask: WeightsAsk
    weights_sent: WeightsSent
    challenge: _instance_pb2.Challenge
    proof: _instance_pb2.Proof
    def __init__(self, hello: _Optional[_Union[LinkHello, _Mapping]] = ..., welcome: _Optional[_Union[LinkWelcome, _Mapping]] = ..., offer: _Optional[_Union[Offer, _Mapping]] = ..., post: _Optional[_Union[Post, _Mapping]] = ..., done: _Optional[_Union[Done, _Mapping]] = ..., probe: _Optional[_Union[ProbeOffer, _Mapping]] = ..., weights_hello: _Optional[_Union[WeightsHello, _Mapping]] = ..., weights_index: _Optional[_Union[WeightsIndex, _Mapping]] = ..., weights_ask: _Optional[_Union[WeightsAsk, _Mapping]] = ..., weights_sent: _Optional[_Union[WeightsSent, _Mapping]] = ..., challenge: _Optional[_Union[_instance_pb2.Challenge, _Mapping]] = ..., proof: _Optional[_Union[_instance_pb2.Proof, _Mapping]] = ...) -> None: ...
