"""What rank 0 tells another rank when it begins."""

from dataclasses import asdict, dataclass

from cluster.instance.config import HandoverConfig, WeightsPeer
from cluster.pb.ranks_pb2 import RankHello


@dataclass(frozen=True, slots=True, kw_only=True)
class RankSetup:
    """`store_host` and `store_port`: where the ranks find each other. `num_threads` 0: as many as torch takes.

    `device`: cpu, or cuda for the first GPU that each rank's process sees. The number of blocks is given for a CPU, and
    measured on GPUs; the fields from `device` to `batch_invariant` are for those. `max_model_len` 0: the model's.
    `weights_bytes_per_s`: for all ranks together, as they serve weights; 0: no limit.
    """

    world_size: int
    model_path: str
    dtype: str
    block_size: int
    num_blocks: int = 0
    num_threads: int = 0
    device: str = "cpu"
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 8192
    max_model_len: int = 0
    gpu_memory_utilization: float = 0.9
    batch_invariant: bool = False
    instance: str = ""
    weights_peers: tuple[WeightsPeer, ...] = ()
    weights_piece_bytes: int = HandoverConfig().piece_bytes
    weights_bytes_per_s: int = 0
    rank: int = 0
    store_host: str = ""
    store_port: int = 0

    def to_hello(self) -> RankHello:
        return RankHello(**asdict(self))

    @classmethod
    def from_hello(cls, hello: RankHello) -> "RankSetup":
        fields = {name: getattr(hello, name) for name in cls.__dataclass_fields__}
        peers = tuple(
            WeightsPeer(name=it.name, incarnation=it.incarnation, link_address=it.link_address)
            for it in hello.weights_peers
        )
        return cls(**{**fields, "weights_peers": peers})
