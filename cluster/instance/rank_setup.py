"""What all ranks of an instance are told, from its configuration."""

from cluster.instance.config import InstanceConfig
from cluster.ranks.setup import RankSetup


def rank_setup(config: InstanceConfig) -> RankSetup:
    """Whatever they compute on; what a CPU or a GPU needs beyond it is added by who loads there."""
    options = config.engine
    return RankSetup(
        world_size=options.tensor_parallel_size,
        model_path=config.model_path,
        dtype=options.dtype,
        block_size=options.block_size,
        instance=config.name,
        weights_peers=config.weights_peers,
        weights_piece_bytes=config.handover.piece_bytes,
        weights_bytes_per_s=config.handover.bytes_per_s or 0,
    )
