"""A model's weights from an instance that runs already; from disk where none has them, or one fails on the way."""

import logging
from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor

from cluster.instance.config import WeightsPeer
from cluster.instance.served_weights import part_of
from cluster.links.errors import LinkError
from cluster.links.link_end import rank_addresses
from cluster.links.weights_receiver import WeightsReceiver
from cluster.messages import Holder
from cluster.model.checkpoint import CPU
from cluster.model.decoder import Decoder
from cluster.model.load import DTYPES, load_model
from cluster.model.parallel import Alone, Communicator
from cluster.secret import ClusterSecret

TIMEOUT_S = 10.0
"""For each piece of a tensor, and for the greeting."""

log = logging.getLogger(__name__)


class PeerWeights:
    """Implements `cluster.model.checkpoint.Weights`. Everything is a LinkError that would leave a tensor incomplete."""

    def __init__(self, receiver: WeightsReceiver, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype = dtype
        self._device = device
        self._receiver = receiver

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._receiver.__exit__(*error)

    def tensor(self, name: str, *shape: int) -> Tensor:
        tensor = torch.empty(shape, dtype=self.dtype, pin_memory=self._device.type != "cpu")
        self._receiver.fetch(name, shape, tensor.view(-1).view(torch.uint8).numpy().data)
        return tensor.to(self._device)

    def part(self, name: str, *shape: int, dim: int, start: int, size: int) -> Tensor:
        """The peer has the same part, and nothing else."""
        return self.tensor(name, *shape[:dim], size, *shape[dim + 1 :])

    def check_all_used(self, *, ignore: tuple[str, ...]) -> None:
        """The peer has loaded them: it knows of no others."""


def load_weights(
    model_path: str,
    dtype: str,
    peers: Sequence[WeightsPeer],
    *,
    caller: str,
    secret: ClusterSecret,
    communicator: Communicator | None = None,
    device: torch.device = CPU,
    progress: Callable[[str], None] = lambda said: None,
) -> Decoder:
    """As `load_model`, from the first of the peers that gives all of it. What a peer gave in part is let go of."""
    communicator = communicator or Alone()
    for peer in peers:
        progress(f"loading weights from {peer.name}")
        try:
            part = part_of(model_path, dtype, communicator.rank, communicator.world_size)
            addresses = rank_addresses(peer.link_address)
            if len(addresses) != part.num_ranks:
                raise LinkError(f"it has {len(addresses)} ranks, and here are {part.num_ranks}")
            holder = Holder(peer.name, peer.incarnation)
            receiver = WeightsReceiver(
                addresses[part.rank], holder, part, caller=caller, secret=secret, timeout_s=TIMEOUT_S
            )
            with PeerWeights(receiver, DTYPES[dtype], device) as weights:
                model = load_model(model_path, DTYPES[dtype], communicator, device, weights)
            log.info("the weights are from %s", peer.name)
            return model
        except (LinkError, OSError) as error:
            log.warning("no weights from %s: %s", peer.name, error)
    if peers:
        progress("loading weights from disk")
    return load_model(model_path, DTYPES[dtype], communicator, device)
