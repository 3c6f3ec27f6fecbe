"""The weights of one rank: from the same rank of an instance that runs, or from disk, and to one that starts."""

from collections.abc import Callable

import torch

from cluster.instance.peer_weights import TIMEOUT_S, load_weights
from cluster.instance.served_weights import ServedWeights, part_of
from cluster.links.weights_sender import WeightsSender
from cluster.model.checkpoint import CPU
from cluster.model.decoder import Decoder
from cluster.model.parallel import Communicator
from cluster.ranks.setup import RankSetup
from cluster.secret import ClusterSecret


def load_rank(
    setup: RankSetup,
    communicator: Communicator,
    secret: ClusterSecret,
    device: torch.device = CPU,
    progress: Callable[[str], None] = lambda said: None,
) -> Decoder:
    """Raises what `load_model` raises."""
    return load_weights(
        setup.model_path,
        setup.dtype,
        setup.weights_peers,
        caller=setup.instance,
        secret=secret,
        communicator=communicator,
        device=device,
        progress=progress,
    )


def rank_weights_sender(setup: RankSetup, model: Decoder) -> WeightsSender:
    """Of another rank than 0."""
    source = ServedWeights(model, part_of(setup.model_path, setup.dtype, setup.rank, setup.world_size))
    return WeightsSender(
        source,
        piece_bytes=setup.weights_piece_bytes,
        bytes_per_s=setup.weights_bytes_per_s or None,
        num_ranks=setup.world_size,
        timeout_s=TIMEOUT_S,
    )
