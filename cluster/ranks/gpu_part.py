"""What one rank of an instance has on its GPU: its part of the model, KV memory, a runner; alone it has all of it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from cluster.links.device_region import DeviceRegion
from cluster.links.nccl import CupyDevice
from cluster.model.config import ModelConfig
from cluster.model.decoder import Decoder
from cluster.model.device import free_bytes, use_device
from cluster.model.gpu_options import GpuOptions
from cluster.model.gpu_warm_up import measure_num_blocks
from cluster.model.kv_cache import KVCache
from cluster.model.kv_sizing import check_weights_fit
from cluster.model.load import DTYPES
from cluster.model.parallel import Communicator
from cluster.model.runner import ModelRunner
from cluster.ranks.kv_memory import device_region
from cluster.ranks.setup import RankSetup
from cluster.ranks.weights import load_rank
from cluster.secret import ClusterSecret


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuPart:
    runner: ModelRunner
    region: DeviceRegion


def load_gpu_part(
    setup: RankSetup,
    device: torch.device,
    secret: ClusterSecret,
    *,
    join: Callable[[], Communicator],
    agree: Callable[[int], int],
    make_runner: Callable[[Decoder, KVCache, GpuOptions], ModelRunner] = ModelRunner,
    progress: Callable[[str], None] = lambda said: None,
) -> GpuPart:
    """All ranks do this side by side; the warm-up and the recording of graphs are steps that they compute together.

    `join` gives the communicator; `agree` is told for how many blocks there is room, and says how many there are to be.
    Raises CheckpointError, DeviceUnavailable, and NcclUnavailable, which says what is missing.
    """
    use_device(device)
    links = CupyDevice(device.index or 0, cuda=torch.version.cuda)
    dtype = DTYPES[setup.dtype]
    check_weights_fit(_weight_bytes(setup, dtype), free_bytes(device))
    model = load_rank(setup, join(), secret, device, progress)
    progress("warming up")
    num_blocks = agree(
        measure_num_blocks(
            model,
            setup.block_size,
            max_num_batched_tokens=setup.max_num_batched_tokens,
            max_num_seqs=setup.max_num_seqs,
            utilization=setup.gpu_memory_utilization,
        )
    )
    kv_cache = KVCache(num_blocks, *model.kv_shape(setup.block_size), dtype, device=device)
    progress("recording graphs")
    options = GpuOptions(
        max_num_seqs=setup.max_num_seqs, max_model_len=setup.max_model_len, batch_invariant=setup.batch_invariant
    )
    runner = make_runner(model, kv_cache, options)
    return GpuPart(runner=runner, region=device_region(links, kv_cache))


def _weight_bytes(setup: RankSetup, dtype: torch.dtype) -> int:
    """Of this rank: the embedding is on every one, of all else each has a share."""
    config = ModelConfig.from_checkpoint(setup.model_path)
    embedding = config.vocab_size * config.hidden_size
    return (embedding + (config.num_parameters - embedding) // setup.world_size) * dtype.itemsize
