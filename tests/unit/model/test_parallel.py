"""What each rank holds of a model; several ranks at work are in tests/integration/test_tensor_parallel.py."""

from types import SimpleNamespace

import pytest
import safetensors
import torch

from cluster.model import checkpoint as checkpoint_module
from cluster.model import parallel
from cluster.model.load import load_model
from cluster.model.parallel import Alone, join_nccl
from cluster.model.random_checkpoint import make_random_checkpoint

pytestmark = pytest.mark.unit


class Part(Alone):
    """A rank that is loaded, and computes nothing."""

    def __init__(self, rank, world_size):
        self.rank, self.world_size = rank, world_size


class CountingReader:
    """Counts what is read from a safetensors file, by tensor."""

    def __init__(self, file, counts):
        self.file, self.counts = file, counts

    def keys(self):
        return self.file.keys()

    def get_slice(self, name):
        return CountingSlice(self.file.get_slice(name), name, self.counts)


class CountingSlice:
    def __init__(self, stored, name, counts):
        self.stored, self.name, self.counts = stored, name, counts

    def get_shape(self):
        return self.stored.get_shape()

    def __getitem__(self, wanted):
        tensor = self.stored[wanted]
        self.counts[self.name] = self.counts.get(self.name, 0) + tensor.numel()
        return tensor


@pytest.fixture
def num_read(monkeypatch):
    """Elements that were read, by tensor."""
    counts = {}
    opened = safetensors.safe_open
    monkeypatch.setattr(
        checkpoint_module, "safe_open", lambda *args, **kwargs: CountingReader(opened(*args, **kwargs), counts)
    )
    return counts


def test_a_rank_reads_only_its_part(tmp_path, num_read):
    path = make_random_checkpoint(tmp_path, num_key_value_heads=4)
    load_model(path)
    whole = dict(num_read)
    num_read.clear()
    load_model(path, communicator=Part(3, 4))
    shared = {name for name in whole if "norm" in name or "embed_tokens" in name}
    assert {name: whole[name] // num_read[name] for name in whole} == {
        name: 1 if name in shared else 4 for name in whole
    }
    assert len(whole) - len(shared) == 2 * 7 + 1


def test_the_parts_of_all_ranks_are_the_whole(tmp_path):
    """Of a layer's projections, by what they do to a hidden state."""
    path = make_random_checkpoint(tmp_path, num_key_value_heads=4, attention_bias=True)
    hidden = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    whole = load_model(path).layers[1].mlp(hidden)
    parts = [load_model(path, communicator=Part(rank, 4)).layers[1].mlp(hidden) for rank in range(4)]
    torch.testing.assert_close(sum(parts), whole)


def test_a_vocabulary_that_ranks_cannot_share_evenly_is_filled_up(tmp_path):
    path = make_random_checkpoint(tmp_path, num_key_value_heads=4, vocab_size=322)
    hidden = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    whole = load_model(path)
    parts = [load_model(path, communicator=Part(rank, 4)) for rank in range(4)]
    logits = torch.cat([part.lm_head(part.norm(hidden)) for part in parts], dim=-1)
    assert logits.shape == (2, 4 * 81)
    torch.testing.assert_close(logits[:, :322], whole.logits(hidden))


class StreamGroup:
    """Of NCCL, for two ranks of which the other holds twice as much: what is put on the current stream has no work."""

    def __init__(self, store, rank, world_size, options):
        self.rank, self.timeout_s, self.device = rank, options._timeout.total_seconds(), None

    def eager_connect_single_device(self, device):
        self.device = device

    def allreduce(self, tensors, options):
        assert not options.asyncOp
        tensors[0].mul_(3)

    def gather(self, parts, tensors, options):
        assert not options.asyncOp
        assert options.rootRank == 0
        if self.rank:
            assert parts == []
        else:
            parts[0][0].copy_(tensors[0])
            parts[0][1].copy_(tensors[0] * 2)


def test_nccl_works_on_the_current_stream(monkeypatch):
    real = parallel.distributed
    nccl = type("ProcessGroupNCCL", (StreamGroup,), {"Options": SimpleNamespace})
    names = ("AllreduceOptions", "GatherOptions", "PrefixStore", "HashStore")
    fake = SimpleNamespace(ProcessGroupNCCL=nccl, **{name: getattr(real, name) for name in names})
    monkeypatch.setattr(parallel, "distributed", fake)
    monkeypatch.setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")
    device = torch.device("cuda", 0)
    first, second = (join_nccl(real.HashStore(), rank, 2, device=device, timeout_s=7.0) for rank in (0, 1))
    numbers = torch.arange(4.0).view(2, 2)
    assert torch.equal(first.all_reduce(numbers.clone()), 3 * numbers)
    assert torch.equal(first.gather_columns(numbers), torch.cat((numbers, 2 * numbers), dim=1))
    assert second.gather_columns(numbers) is None
    assert (first._group.timeout_s, first._group.device) == (7.0, device)
