"""An engine whose weights and KV are on a GPU: its memory is sized by measuring, and only NCCL moves its blocks."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cluster.instance.config import InstanceConfig
from cluster.instance.rank_setup import rank_setup
from cluster.ranks.group import RankGroup
from cluster.ranks.setup import RankSetup

if TYPE_CHECKING:
    import torch

    from cluster.ranks.gpu_part import GpuPart

LARGEST_STEP_TOKENS = 8192
"""What is warmed up with where `max_num_batched_tokens` is not given: then no step is larger."""


class GpuMemory:
    """Lives as long as the cache's tensor does; there is nothing to unmap."""

    def close(self) -> None:
        pass


def load_on_gpu(
    config: InstanceConfig, device: "torch.device", ranks: RankGroup | None, progress: Callable[[str], None]
) -> "GpuPart":
    """With `ranks`, as rank 0 of several, which wait for it: then RankLost is raised, too.

    Raises CheckpointError, DeviceUnavailable, and NcclUnavailable, which says what is missing.
    """
    from cluster.model.parallel import Alone
    from cluster.ranks.gpu_part import load_gpu_part
    from cluster.ranks.load import load_leading_gpu

    setup = _setup(config)
    if ranks is None:
        alone: dict[str, Any] = {"join": Alone, "agree": lambda num_blocks: num_blocks}
        return load_gpu_part(setup, device, config.secret, **alone, progress=progress)
    return load_leading_gpu(setup, ranks, config.rank_addresses, config.secret, config.host, device, progress)


def _setup(config: InstanceConfig) -> RankSetup:
    options = config.engine
    return replace(
        rank_setup(config),
        device="cuda",
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens or LARGEST_STEP_TOKENS,
        max_model_len=options.max_model_len or 0,
        gpu_memory_utilization=options.gpu_memory_utilization,
        batch_invariant=options.batch_invariant,
    )
