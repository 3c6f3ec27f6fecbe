"""An engine whose weights and KV are on a GPU: its memory is sized by measuring, and only NCCL moves its blocks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.instance.config import InstanceConfig
from cluster.links.device_region import DeviceRegion

if TYPE_CHECKING:
    import torch

    from cluster.model.runner import ModelRunner

LARGEST_STEP_TOKENS = 8192
"""What is warmed up with where `max_num_batched_tokens` is not given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuEngine:
    runner: "ModelRunner"
    region: DeviceRegion


class GpuMemory:
    """Lives as long as the cache's tensor does; there is nothing to unmap."""

    def close(self) -> None:
        pass


def load_on_gpu(config: InstanceConfig, device: "torch.device", progress: Callable[[str], None]) -> GpuEngine:
    """Raises CheckpointError, DeviceUnavailable, and NcclUnavailable, which says what is missing."""
    from cluster.links.nccl import CupyDevice
    from cluster.model.config import ModelConfig
    from cluster.model.device import free_bytes, use_device
    from cluster.model.gpu_options import GpuOptions
    from cluster.model.gpu_warm_up import measure_num_blocks
    from cluster.model.kv_cache import KVCache
    from cluster.model.kv_sizing import check_weights_fit
    from cluster.model.load import DTYPES, load_model
    from cluster.model.runner import ModelRunner

    options, dtype = config.engine, DTYPES[config.engine.dtype]
    use_device(device)
    links = CupyDevice(device.index or 0)
    weight_bytes = ModelConfig.from_checkpoint(config.model_path).num_parameters * dtype.itemsize
    check_weights_fit(weight_bytes, free_bytes(device))
    model = load_model(config.model_path, dtype, device=device)
    progress("warming up")
    num_blocks = measure_num_blocks(
        model,
        options.block_size,
        max_num_batched_tokens=options.max_num_batched_tokens or LARGEST_STEP_TOKENS,
        max_num_seqs=options.max_num_seqs,
        utilization=options.gpu_memory_utilization,
    )
    kv_cache = KVCache(num_blocks, *model.kv_shape(options.block_size), dtype, device=device)
    progress("recording graphs")
    gpu = GpuOptions(max_num_seqs=options.max_num_seqs, batch_invariant=options.batch_invariant)
    runner = ModelRunner(model, kv_cache, gpu)
    pointer = kv_cache.tensor.data_ptr()
    region = DeviceRegion(
        links,
        pointer=pointer,
        record_bytes=kv_cache.record_bytes,
        num_records=num_blocks,
        checksums=links.checksummer(pointer, kv_cache.record_bytes),
    )
    return GpuEngine(runner=runner, region=region)
