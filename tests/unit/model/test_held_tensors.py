"""What a running model holds is what it was loaded from, tensor by tensor."""

import math

import pytest
import torch

from cluster.model.checkpoint import Checkpoint
from cluster.model.decoder import Decoder
from cluster.model.held_tensors import held_tensors
from cluster.model.load import load_model
from cluster.model.parallel import Alone
from tests.unit.model.factories import SHAPES, checkpoint

pytestmark = pytest.mark.unit


class Part(Alone):
    def __init__(self, rank: int, world_size: int) -> None:
        self.rank, self.world_size = rank, world_size


class Remembering(Checkpoint):
    """Keeps what it has handed out."""

    def _read(self, name, shape, wanted):
        tensor = super()._read(name, shape, wanted)
        self.__dict__.setdefault("read", {})[name] = tensor.clone()
        return tensor


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SHAPES)
def test_every_tensor_that_was_read_is_held_as_it_was(name, dtype):
    weights = Remembering(checkpoint(name), dtype)
    check(load_model(checkpoint(name), dtype, weights=weights), weights.read)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_holds_its_part(rank):
    weights = Remembering(checkpoint("llama-mha-biased"), torch.float32)
    check(load_model(checkpoint("llama-mha-biased"), torch.float32, Part(rank, 2), weights=weights), weights.read)


def check(model: Decoder, read: dict[str, torch.Tensor]) -> None:
    held = held_tensors(model)
    assert held.keys() == read.keys()
    for name, tensor in read.items():
        found = held[name].read()
        assert found.shape == held[name].shape == tensor.shape, name
        assert found.numel() == math.prod(held[name].shape)
        assert torch.equal(found, tensor), name
