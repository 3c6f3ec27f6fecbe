"""From checkpoint and addresses to ranks that compute together."""

from collections.abc import Callable
from collections.abc import Sequence as List
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from cluster.links.device_region import Region
from cluster.links.shared_region import SharedRegion
from cluster.model.config import ModelConfig
from cluster.model.decoder import Decoder
from cluster.model.device import find_device
from cluster.model.kv_cache import KVCache
from cluster.model.load import DTYPES
from cluster.model.parallel import Communicator, join_gloo, join_nccl, make_store
from cluster.model.runner import ModelRunner
from cluster.ranks.gpu_part import GpuPart, load_gpu_part
from cluster.ranks.group import RankGroup
from cluster.ranks.kv_memory import kv_region
from cluster.ranks.leading_runner import LeadingRunner
from cluster.ranks.setup import RankSetup
from cluster.ranks.weights import load_rank
from cluster.secret import ClusterSecret

GROUP_TIMEOUT_S = 60.0
"""To find each other, and for a collective in which a rank hangs without being gone."""

READY_TIMEOUT_S = 600.0
"""For the slowest to have read its weights after rank 0 has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowerPart:
    """Of another rank than 0. `memory`: what the region lies in, on a CPU."""

    runner: ModelRunner
    region: Region
    memory: SharedRegion | None = None


def record_bytes(setup: RankSetup) -> int:
    """Of a KV block on each rank. Raises CheckpointError, and UnsupportedParallelism for ranks that cannot share."""
    config = ModelConfig.from_checkpoint(setup.model_path)
    num_kv_heads = config.shard(setup.rank, setup.world_size).num_kv_heads
    shape = (config.num_layers, setup.block_size, num_kv_heads, config.head_dim)
    return KVCache.record_bytes_for(*shape, DTYPES[setup.dtype])


def load_follower(setup: RankSetup, host: str, agree: Callable[[int], int], secret: ClusterSecret) -> FollowerPart:
    """On another rank than 0; `host` is its own address. Blocks until all ranks have found each other.

    `agree`: as `load_gpu_part` asks for it.
    """
    store = make_store(setup.store_host, setup.store_port, setup.world_size, is_host=False, timeout_s=GROUP_TIMEOUT_S)
    if setup.device != "cpu":
        device = find_device(setup.device)
        join = partial(_join_nccl, setup, store, device)
        part = load_gpu_part(setup, device, secret, join=join, agree=agree)
        return FollowerPart(runner=part.runner, region=part.region)
    if setup.num_threads:
        torch.set_num_threads(setup.num_threads)
    model = _load_part(setup, store, host, secret)
    memory = SharedRegion.create(setup.num_blocks * record_bytes(setup))
    runner = ModelRunner(model, _kv_cache(model, setup, memory.buffer))
    return FollowerPart(runner=runner, region=kv_region(memory, runner.kv_cache), memory=memory)


def load_leader(
    setup: RankSetup,
    group: RankGroup,
    addresses: List[str],
    secret: ClusterSecret,
    host: str,
    buffer: memoryview | None = None,
    progress: Callable[[str], None] = lambda said: None,
) -> LeadingRunner:
    """On rank 0, at `host`, with the other ranks at `addresses`; where they find each other is filled into `setup`.

    Raises RankLost, and what `load_model` raises.
    """
    setup, store = _call(setup, group, addresses, secret, host)
    try:
        model = _load_part(setup, store, host, secret, progress)
    except RuntimeError:
        group.raise_if_lost()
        raise
    group.wait_until_ready(READY_TIMEOUT_S)
    progress("loading kernels")
    return LeadingRunner(model, _kv_cache(model, setup, buffer), followers=group)


def load_leading_gpu(
    setup: RankSetup,
    group: RankGroup,
    addresses: List[str],
    secret: ClusterSecret,
    host: str,
    device: torch.device,
    progress: Callable[[str], None],
) -> GpuPart:
    """As `load_leader`, on `device`. Raises what `load_gpu_part` raises, too."""
    setup, store = _call(setup, group, addresses, secret, host)

    def join() -> Communicator:
        communicator = group.unless_lost(partial(_join_nccl, setup, store, device))
        group.abort_when_lost(communicator.abort)
        return communicator

    try:
        part = load_gpu_part(
            setup,
            device,
            secret,
            join=join,
            agree=lambda num_blocks: group.agree(num_blocks, READY_TIMEOUT_S),
            make_runner=partial(LeadingRunner, followers=group),
            progress=progress,
        )
    except RuntimeError:
        group.raise_if_lost()
        raise
    group.wait_until_ready(READY_TIMEOUT_S)
    return part


def _call(
    setup: RankSetup, group: RankGroup, addresses: List[str], secret: ClusterSecret, host: str
) -> tuple[RankSetup, Any]:
    """The others begin. With the store by which all find each other."""
    store = make_store(host, 0, setup.world_size, is_host=True, timeout_s=GROUP_TIMEOUT_S)
    setup = replace(setup, store_host=host, store_port=store.port)
    group.call(addresses, setup, secret)
    return setup, store


def _load_part(
    setup: RankSetup,
    store: Any,
    host: str,
    secret: ClusterSecret,
    progress: Callable[[str], None] = lambda said: None,
) -> Decoder:
    communicator = join_gloo(store, setup.rank, setup.world_size, host=host, timeout_s=GROUP_TIMEOUT_S)
    return load_rank(setup, communicator, secret, progress=progress)


def _join_nccl(setup: RankSetup, store: Any, device: torch.device) -> Communicator:
    return join_nccl(store, setup.rank, setup.world_size, device=device, timeout_s=GROUP_TIMEOUT_S)


def _kv_cache(model: Decoder, setup: RankSetup, buffer: memoryview | None = None) -> KVCache:
    return KVCache(setup.num_blocks, *model.kv_shape(setup.block_size), model.dtype, buffer)
