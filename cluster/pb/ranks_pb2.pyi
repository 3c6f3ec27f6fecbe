from cluster.pb import instance_pb2 as _instance_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RankFrame(_message.Message):
    __slots__ = ("hello", "challenge", "proof", "ready", "failed")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    hello: RankHello
    challenge: _instance_pb2.Challenge
    proof: _instance_pb2.Proof
    ready: RankReady
    failed: RankFailed
    def __init__(self, hello: _Optional[_Union[RankHello, _Mapping]] = ..., challenge: _Optional[_Union[_instance_pb2.Challenge, _Mapping]] = ..., proof: _Optional[_Union[_instance_pb2.Proof, _Mapping]] = ..., ready: _Optional[_Union[RankReady, _Mapping]] = ..., failed: _Optional[_Union[RankFailed, _Mapping]] = ...) -> None: ...

class RankHello(_message.Message):
    __slots__ = ("rank", "world_size", "store_host", "store_port", "model_path", "dtype", "block_size", "num_blocks", "num_threads", "nonce")
    RANK_FIELD_NUMBER: _ClassVar[int]
    WORLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    STORE_HOST_FIELD_NUMBER: _ClassVar[int]
    STORE_PORT_FIELD_NUMBER: _ClassVar[int]
    MODEL_PATH_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    NUM_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    NUM_THREADS_FIELD_NUMBER: _ClassVar[int]
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
    nonce: bytes
    def __init__(self, rank: _Optional[int] = ..., world_size: _Optional[int] = ..., store_host: _Optional[str] = ..., store_port: _Optional[int] = ..., model_path: _Optional[str] = ..., dtype: _Optional[str] = ..., block_size: _Optional[int] = ..., num_blocks: _Optional[int] = ..., num_threads: _Optional[int] = ..., nonce: _Optional[bytes] = ...) -> None: ...

class RankReady(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RankFailed(_message.Message):
    __slots__ = ("problem",)
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    problem: str
    def __init__(self, problem: _Optional[str] = ...) -> None: ...
