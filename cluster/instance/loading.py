"""From a configuration to an engine with weights and KV memory: the only part of an instance that knows torch."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cluster.engine.block_manager import BlockManager
from cluster.engine.engine import Engine
from cluster.engine.scheduler import Scheduler, SchedulerConfig
from cluster.instance.config import EngineConfig, InstanceConfig
from cluster.instance.gpu_loading import LARGEST_STEP_TOKENS, GpuMemory
from cluster.instance.rank_setup import rank_setup
from cluster.links.device_region import Region, check_transport
from cluster.links.shared_region import SharedRegion
from cluster.links.weights import WeightsSource
from cluster.ranks.group import RankGroup
from cluster.role import RolePolicy

if TYPE_CHECKING:
    import torch

    from cluster.model.runner import ModelRunner


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedEngine:
    """`memory` and `region` are this rank's; `ranks` are the others, if there are any. `weights`: for who starts.

    `token_budget`: of a step in a role.
    """

    engine: Engine
    memory: SharedRegion | GpuMemory
    region: Region
    vocab_size: int
    max_model_len: int
    saturation_tokens: int
    ranks: RankGroup | None = None
    weights: WeightsSource | None = None

    def token_budget(self, options: EngineConfig, policy: RolePolicy) -> int:
        return _token_budget(options, policy, self.saturation_tokens, on_gpu=isinstance(self.memory, GpuMemory))


def load_engine(config: InstanceConfig, policy: RolePolicy, progress: Callable[[str], None]) -> LoadedEngine:
    """Blocks for as long as it takes; `progress` is told what it is at.

    Raises CheckpointError and other ValueErrors, and RankLost.
    """
    # Read once, when torch is loaded. Threads that spin while they wait take the cores from the instances beside them.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    from cluster.instance.served_weights import ServedWeights, part_of
    from cluster.model.device import find_device
    from cluster.model.saturation import measure_saturation

    options = config.engine
    device = find_device(options.device)
    check_transport(config.links, on_device=device.type != "cpu")
    if options.num_threads:
        torch.set_num_threads(options.num_threads)
    progress("loading weights")
    if device.type != "cpu":
        loaded = _load_gpu(config, device, progress)
    else:
        loaded = _load_alone(config, progress) if options.tensor_parallel_size == 1 else _load_ranks(config, progress)
    runner, num_blocks = loaded.runner, loaded.runner.kv_cache.num_blocks
    progress("measuring saturation")
    largest = {} if device.type == "cpu" else {"max_tokens": _largest_chunk(options)}
    saturation_tokens = measure_saturation(runner, **largest)
    max_model_len = min(options.max_model_len or runner.model.config.max_model_len, runner.model.config.max_model_len)
    scheduler = Scheduler(
        SchedulerConfig(
            max_num_seqs=options.max_num_seqs,
            max_num_batched_tokens=_token_budget(options, policy, saturation_tokens, on_gpu=device.type != "cpu"),
            watermark_blocks=policy.watermark_blocks(num_blocks),
            max_model_len=max_model_len,
        ),
        BlockManager(num_blocks, options.block_size, enable_prefix_caching=options.enable_prefix_caching),
    )
    return LoadedEngine(
        engine=Engine(scheduler, runner, runner if runner.computes_beside else None),
        memory=loaded.memory,
        region=loaded.region,
        vocab_size=runner.model.config.vocab_size,
        max_model_len=max_model_len,
        saturation_tokens=saturation_tokens,
        ranks=loaded.ranks,
        weights=ServedWeights(runner.model, part_of(config.model_path, options.dtype, 0, options.tensor_parallel_size)),
    )


def _largest_chunk(options: EngineConfig) -> int:
    """Memory was measured with a step of this size or a larger one."""
    return min(options.max_num_batched_tokens or LARGEST_STEP_TOKENS, LARGEST_STEP_TOKENS)


def _token_budget(options: EngineConfig, policy: RolePolicy, saturation_tokens: int, *, on_gpu: bool) -> int:
    """On a GPU no more than memory was measured with."""
    if options.max_num_batched_tokens is not None:
        return options.max_num_batched_tokens
    budget = policy.token_budget(saturation_tokens, options.max_num_seqs)
    return min(budget, LARGEST_STEP_TOKENS) if on_gpu else budget


@dataclass(frozen=True, slots=True, kw_only=True)
class _LoadedModel:
    runner: "ModelRunner"
    memory: SharedRegion | GpuMemory
    region: Region
    ranks: RankGroup | None = None


def _load_alone(config: InstanceConfig, progress: Callable[[str], None]) -> _LoadedModel:
    from cluster.instance.peer_weights import load_weights
    from cluster.model.kv_cache import KVCache
    from cluster.model.load import DTYPES
    from cluster.model.runner import ModelRunner
    from cluster.ranks.kv_memory import kv_region

    options = config.engine
    model = load_weights(
        config.model_path,
        options.dtype,
        config.weights_peers,
        caller=config.name,
        secret=config.secret,
        progress=progress,
    )
    progress("reserving KV memory")
    kv_shape = (*model.kv_shape(options.block_size), DTYPES[options.dtype])
    memory, num_blocks = _reserve(options.kv_cache_memory_bytes, KVCache.record_bytes_for(*kv_shape), num_ranks=1)
    kv_cache = KVCache(num_blocks, *kv_shape, buffer=memory.buffer)
    progress("loading kernels")
    runner = ModelRunner(model, kv_cache)
    return _LoadedModel(runner=runner, memory=memory, region=kv_region(memory, runner.kv_cache))


def _load_gpu(config: InstanceConfig, device: "torch.device", progress: Callable[[str], None]) -> _LoadedModel:
    from cluster.instance.gpu_loading import load_on_gpu

    ranks = RankGroup() if _num_ranks(config) > 1 else None
    try:
        loaded = load_on_gpu(config, device, ranks, progress)
    except BaseException:
        if ranks is not None:
            ranks.close()
        raise
    return _LoadedModel(runner=loaded.runner, memory=GpuMemory(), region=loaded.region, ranks=ranks)


def _load_ranks(config: InstanceConfig, progress: Callable[[str], None]) -> _LoadedModel:
    """As rank 0 of several, which wait for it."""
    from cluster.ranks.kv_memory import kv_region
    from cluster.ranks.load import load_leader, record_bytes

    options, num_ranks = config.engine, _num_ranks(config)
    setup = replace(rank_setup(config), num_threads=options.num_threads or 0)
    memory, num_blocks = _reserve(options.kv_cache_memory_bytes, record_bytes(setup), num_ranks)
    setup, ranks = replace(setup, num_blocks=num_blocks), RankGroup()
    try:
        runner = load_leader(setup, ranks, config.rank_addresses, config.secret, config.host, memory.buffer, progress)
    except BaseException:
        ranks.close()
        raise
    return _LoadedModel(runner=runner, memory=memory, region=kv_region(memory, runner.kv_cache), ranks=ranks)


def _num_ranks(config: InstanceConfig) -> int:
    """Raises ValueError where they are not all there."""
    num_ranks, num_there = config.engine.tensor_parallel_size, 1 + len(config.rank_addresses)
    if num_there != num_ranks:
        raise ValueError(f"tensor_parallel_size is {num_ranks}, and {num_there} ranks are there")
    return num_ranks


def _reserve(num_bytes: int, record_bytes: int, num_ranks: int) -> tuple[SharedRegion, int]:
    """This rank's part of the instance's KV memory, and how many blocks there are in it."""
    num_blocks = num_bytes // (record_bytes * num_ranks)
    if num_blocks < 1:
        raise ValueError(f"kv_cache_memory_bytes {num_bytes} is less than a block of {record_bytes * num_ranks}")
    return SharedRegion.create(num_blocks * record_bytes), num_blocks
