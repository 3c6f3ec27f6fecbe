"""From a configuration to an engine with weights and KV memory: the only part of an instance that knows torch."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from cluster.engine.block_manager import BlockManager
from cluster.engine.engine import Engine
from cluster.engine.scheduler import Scheduler, SchedulerConfig
from cluster.instance.config import InstanceConfig
from cluster.links.device_region import check_transport
from cluster.links.kv_region import KvRegion
from cluster.links.shared_region import SharedRegion
from cluster.role import RolePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedEngine:
    engine: Engine
    memory: SharedRegion
    region: KvRegion
    vocab_size: int
    max_model_len: int
    saturation_tokens: int


def load_engine(config: InstanceConfig, policy: RolePolicy, progress: Callable[[str], None]) -> LoadedEngine:
    """Blocks for as long as it takes; `progress` is told what it is at. Raises CheckpointError, ValueError."""
    check_transport(config.links, on_device=False)
    # Read once, when torch is loaded. Threads that spin while they wait take the cores from the instances beside them.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    from cluster.model.kv_cache import KVCache
    from cluster.model.load import DTYPES, load_model
    from cluster.model.runner import ModelRunner
    from cluster.model.saturation import measure_saturation

    options = config.engine
    if options.num_threads:
        torch.set_num_threads(options.num_threads)
    progress("loading weights")
    model = load_model(config.model_path, DTYPES[options.dtype])
    progress("reserving KV memory")
    kv_shape = (*model.kv_shape(options.block_size), DTYPES[options.dtype])
    record_bytes = KVCache.record_bytes_for(*kv_shape)
    num_blocks = options.kv_cache_memory_bytes // record_bytes
    if num_blocks < 1:
        raise ValueError(
            f"kv_cache_memory_bytes {options.kv_cache_memory_bytes} is less than a block of {record_bytes}"
        )
    memory = SharedRegion.create(num_blocks * record_bytes)
    region = KvRegion(buffer=memory.buffer, record_bytes=record_bytes, path=memory.path)
    kv_cache = KVCache(num_blocks, *kv_shape, buffer=memory.buffer)
    runner = ModelRunner(model, kv_cache)
    progress("measuring saturation")
    saturation_tokens = measure_saturation(runner)
    max_model_len = min(options.max_model_len or model.config.max_model_len, model.config.max_model_len)
    scheduler = Scheduler(
        SchedulerConfig(
            max_num_seqs=options.max_num_seqs,
            max_num_batched_tokens=options.max_num_batched_tokens
            or policy.token_budget(saturation_tokens, options.max_num_seqs),
            watermark_blocks=policy.watermark_blocks(num_blocks),
            max_model_len=max_model_len,
        ),
        BlockManager(num_blocks, options.block_size, enable_prefix_caching=options.enable_prefix_caching),
    )
    return LoadedEngine(
        engine=Engine(scheduler, runner),
        memory=memory,
        region=region,
        vocab_size=model.config.vocab_size,
        max_model_len=max_model_len,
        saturation_tokens=saturation_tokens,
    )
