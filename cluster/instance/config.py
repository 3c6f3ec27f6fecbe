"""What an instance is told when it is made, and what it tells once it runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.links.config import LinkConfig
from cluster.role import InstanceRole
from cluster.secret import ClusterSecret


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoverConfig:
    """A reservation lives `lease_s` after its source was last heard; a source waits `reserve_timeout_s` for one.

    A running request is moved in `max_stages` stages at most before it stands still, into room for `headroom_blocks`
    more than it has; in pieces of what a link moves in 20 ms, `piece_bytes` at most, two at a time on each link,
    `max_bytes_in_flight` in all, and no more than `bytes_per_s`, all its ranks together (None: as fast as the
    links are), which a decode step on an H100 should not notice (docs/measurements/gpu.md).
    """

    lease_s: float = 5.0
    reserve_timeout_s: float = 10.0
    max_stages: int = 8
    headroom_blocks: int = 4
    piece_bytes: int = 8 << 20
    max_bytes_in_flight: int = 32 << 20
    bytes_per_s: int | None = 10_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSettings:
    """What a role means for the scheduler of one instance: see `cluster.role.RolePolicy`."""

    token_budget: int
    watermark_blocks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreConfig:
    """What the brain of an instance has to know. `record_bytes`: of one block. `roles`: what it can be."""

    handover: HandoverConfig = HandoverConfig()
    grace_s: float = 10.0
    retention_s: float = 30.0
    record_bytes: int = 1
    roles: Mapping[InstanceRole, RoleSettings] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """The YAML's engine options, under vLLM's names. None: chosen from the model or measured.

    `device`: as `cluster.model.device.find_device` reads it. On a GPU, KV takes what weights and the largest step leave
    of `gpu_memory_utilization` of it; on a CPU it takes `kv_cache_memory_bytes`. `batch_invariant`: on a GPU, the same
    tokens whatever else is in the batch, at a price (docs/gpu.md).
    """

    dtype: str = "float32"
    max_model_len: int | None = None
    block_size: int = 16
    kv_cache_memory_bytes: int = 256 << 20
    max_num_seqs: int = 64
    max_num_batched_tokens: int | None = None
    enable_prefix_caching: bool = True
    tensor_parallel_size: int = 1
    num_threads: int | None = None
    device: str = "cpu"
    gpu_memory_utilization: float = 0.9
    batch_invariant: bool = False
    stuck_after_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsPeer:
    """An instance that runs, and may give its weights to one that starts."""

    name: str
    incarnation: int
    link_address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceConfig:
    """`rank_addresses`: where ranks 1 and up of this life of the instance wait to be called. `weights_peers`: who is
    asked for the weights before they are read from disk.

    `front_timeout_s`: a front that is silent for so long is gone; its requests are kept for `grace_s`.

    `retention_s`: the tokens of a request that ended are kept for so long, for a front that comes back. `node`: what
    the host it runs on is called among those between which links are measured; empty: its own name.
    """

    name: str
    role: InstanceRole
    model_path: str
    secret: ClusterSecret
    host: str = "127.0.0.1"
    node: str = ""
    rank_addresses: tuple[str, ...] = ()
    weights_peers: tuple[WeightsPeer, ...] = ()
    engine: EngineConfig = field(default_factory=EngineConfig)
    links: LinkConfig = field(default_factory=LinkConfig)
    handover: HandoverConfig = field(default_factory=HandoverConfig)
    snapshot_interval_s: float = 0.25
    front_timeout_s: float = 2.0
    grace_s: float = 10.0
    retention_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceInfo:
    """One life of an instance, and where to reach it. `saturation_tokens`: L_m, as measured when it started.

    `kv_layout`: instances of which it is equal may give each other requests. `caches_prefixes`: blocks of requests that
    are over are kept as long as there is room. `node`: the host that it runs on; between two of them is a link.
    `block_bytes`: of the KV in a block, on one rank: all ranks' parts travel side by side; 0: not told.
    """

    name: str
    incarnation: int
    role: InstanceRole
    address: str
    link_address: str
    pid: int
    num_blocks: int
    block_size: int
    max_model_len: int
    max_num_seqs: int
    saturation_tokens: int
    kv_layout: str = ""
    caches_prefixes: bool = True
    node: str = ""
    block_bytes: int = 0
