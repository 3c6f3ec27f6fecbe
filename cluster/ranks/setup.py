"""What rank 0 tells another rank when it begins."""

from dataclasses import asdict, dataclass

from cluster.pb.ranks_pb2 import RankHello


@dataclass(frozen=True, slots=True, kw_only=True)
class RankSetup:
    """`store_host` and `store_port`: where the ranks find each other. `num_threads` 0: as many as torch takes."""

    world_size: int
    model_path: str
    dtype: str
    block_size: int
    num_blocks: int = 0
    num_threads: int = 0
    rank: int = 0
    store_host: str = ""
    store_port: int = 0

    def to_hello(self) -> RankHello:
        return RankHello(**asdict(self))

    @classmethod
    def from_hello(cls, hello: RankHello) -> "RankSetup":
        return cls(**{name: getattr(hello, name) for name in cls.__dataclass_fields__})
