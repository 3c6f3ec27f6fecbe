"""From checkpoint and addresses to ranks that compute together."""

from collections.abc import Sequence as List
from dataclasses import replace
from typing import Any

import torch

from cluster.links.shared_region import SharedRegion
from cluster.model.config import ModelConfig
from cluster.model.decoder import Decoder
from cluster.model.kv_cache import KVCache
from cluster.model.load import DTYPES, load_model
from cluster.model.parallel import join_gloo, make_store
from cluster.model.runner import ModelRunner
from cluster.ranks.group import RankGroup
from cluster.ranks.leading_runner import LeadingRunner
from cluster.ranks.setup import RankSetup
from cluster.secret import ClusterSecret

GROUP_TIMEOUT_S = 60.0
"""To find each other, and for a collective in which a rank hangs without being gone."""


READY_TIMEOUT_S = 600.0
"""For the slowest to have read its weights after rank 0 has."""


def record_bytes(setup: RankSetup) -> int:
    """Of a KV block on each rank. Raises CheckpointError, and UnsupportedParallelism for ranks that cannot share."""
    config = ModelConfig.from_checkpoint(setup.model_path)
    num_kv_heads = config.shard(setup.rank, setup.world_size).num_kv_heads
    shape = (config.num_layers, setup.block_size, num_kv_heads, config.head_dim)
    return KVCache.record_bytes_for(*shape, DTYPES[setup.dtype])


def load_follower(setup: RankSetup, host: str) -> tuple[ModelRunner, SharedRegion]:
    """On another rank than 0, with its KV memory; `host` is its own address. Blocks until all ranks have found each
    other.
    """
    if setup.num_threads:
        torch.set_num_threads(setup.num_threads)
    address = (setup.store_host, setup.store_port)
    model = _load_part(setup, make_store(*address, setup.world_size, is_host=False, timeout_s=GROUP_TIMEOUT_S), host)
    memory = SharedRegion.create(setup.num_blocks * record_bytes(setup))
    return ModelRunner(model, _kv_cache(model, setup, memory.buffer)), memory


def load_leader(
    setup: RankSetup,
    group: RankGroup,
    addresses: List[str],
    secret: ClusterSecret,
    host: str,
    buffer: memoryview | None = None,
) -> LeadingRunner:
    """On rank 0, at `host`, with the other ranks at `addresses`; where they find each other is filled into `setup`.

    Raises RankLost, and what `load_model` raises.
    """
    store = make_store(host, 0, setup.world_size, is_host=True, timeout_s=GROUP_TIMEOUT_S)
    setup = replace(setup, store_host=host, store_port=store.port)
    group.call(addresses, setup, secret)
    try:
        model = _load_part(setup, store, host)
    except RuntimeError:
        group.raise_if_lost()
        raise
    group.wait_until_ready(READY_TIMEOUT_S)
    return LeadingRunner(model, _kv_cache(model, setup, buffer), group)


def _load_part(setup: RankSetup, store: Any, host: str) -> Decoder:
    communicator = join_gloo(store, setup.rank, setup.world_size, host=host, timeout_s=GROUP_TIMEOUT_S)
    return load_model(setup.model_path, DTYPES[setup.dtype], communicator)


def _kv_cache(model: Decoder, setup: RankSetup, buffer: memoryview | None = None) -> KVCache:
    return KVCache(setup.num_blocks, *model.kv_shape(setup.block_size), model.dtype, buffer)
