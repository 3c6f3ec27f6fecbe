"""An instance's weights come from a peer, whole, or else from disk, and the log says why."""

from pathlib import Path

import pytest
import torch

from cluster import failpoints
from cluster.instance.config import WeightsPeer
from cluster.instance.peer_weights import load_weights
from cluster.instance.served_weights import ServedWeights, part_of
from cluster.links.config import LinkConfig
from cluster.links.link_listener import LinkListener
from cluster.links.weights_sender import WeightsSender
from cluster.model.held_tensors import held_tensors
from cluster.model.load import load_model
from cluster.model.parallel import Alone
from cluster.model.random_checkpoint import make_random_checkpoint
from cluster.ranks.setup import RankSetup
from cluster.ranks.weights import load_rank, rank_weights_sender
from tests.unit.links.factories import SECRET, Node

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def dtype(request):
    return request.param


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    return make_random_checkpoint(tmp_path / "a", vocab_size=3000, num_key_value_heads=2)


@pytest.fixture
def peer(checkpoint, dtype):
    """Serves the weights of a model that was read from `checkpoint`."""
    node = Node("old", 1, 2, 64, LinkConfig())
    source = ServedWeights(load_model(checkpoint, getattr(torch, dtype)), part_of(str(checkpoint), dtype))
    sender = WeightsSender(source, piece_bytes=1 << 14, timeout_s=5.0)
    listener = LinkListener(
        node.holder, node.region, node.slots, LinkConfig(), node.events, secret=SECRET, host="127.0.0.1", weights=sender
    )
    yield WeightsPeer(name="old", incarnation=1, link_address=listener.address)
    listener.close()
    node.close()


@pytest.fixture
def load(checkpoint, dtype):
    said: list[str] = []

    def load(*peers: WeightsPeer):
        path = str(checkpoint)
        return load_weights(path, dtype, peers, caller="new", secret=SECRET, progress=said.append), said

    return load


def spoil(checkpoint: Path) -> None:
    """Other numbers on disk, of which nothing tells before they are used."""
    file = checkpoint / "model.safetensors"
    content = bytearray(file.read_bytes())
    middle = len(content) // 3
    content[middle : middle + 4000] = bytes(4000)
    file.write_bytes(content)


def same(one, other) -> bool:
    ours, theirs = held_tensors(one), held_tensors(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[it].read(), theirs[it].read()) for it in ours)


def test_a_model_from_a_peer_is_the_peers_and_nothing_is_read_from_disk(checkpoint, dtype, peer, load):
    original = load_model(checkpoint, getattr(torch, dtype))
    spoil(checkpoint)
    model, said = load(peer)
    assert same(model, original)
    assert not same(model, load_model(checkpoint, getattr(torch, dtype)))
    assert said == ["loading weights from old"]


def test_a_peer_that_is_gone_in_the_middle_leaves_nothing_and_the_next_is_asked(checkpoint, dtype, peer, load, caplog):
    original = load_model(checkpoint, getattr(torch, dtype))
    gone = WeightsPeer(name="gone", incarnation=1, link_address="127.0.0.1:1")
    with failpoints.armed("links.weights.piece", failpoints.at(5, failpoints.cut)):
        model, said = load(gone, peer)
    assert same(model, original)
    assert said == ["loading weights from gone", "loading weights from old", "loading weights from disk"]
    assert "no weights from gone: connecting to" in caplog.text
    assert "no weights from old: " in caplog.text


def test_a_peer_of_more_ranks_is_not_asked(peer, load, caplog):
    both = WeightsPeer(name="two", incarnation=1, link_address=f"{peer.link_address},{peer.link_address}")
    _, said = load(both)
    assert said[-1] == "loading weights from disk"
    assert "no weights from two: it has 2 ranks, and here are 1" in caplog.text


class Rank(Alone):
    """That is loaded, and computes nothing."""

    def __init__(self, rank: int) -> None:
        self.rank, self.world_size = rank, 2


def test_each_rank_gets_its_part_from_the_same_rank(checkpoint, dtype):
    path = str(checkpoint)
    originals = [load_model(path, getattr(torch, dtype), Rank(rank)) for rank in range(2)]
    nodes, listeners = [Node("old", 1, 2, 64, LinkConfig()) for _ in range(2)], []
    for rank, (node, model) in enumerate(zip(nodes, originals, strict=True)):
        setup = RankSetup(world_size=2, model_path=path, dtype=dtype, block_size=8, rank=rank)
        options = {"secret": SECRET, "host": "127.0.0.1", "weights": rank_weights_sender(setup, model)}
        listeners.append(LinkListener(node.holder, node.region, node.slots, LinkConfig(), node.events, **options))
    address = ",".join(listener.address for listener in listeners)
    peers = (WeightsPeer(name="old", incarnation=1, link_address=address),)
    spoil(checkpoint)
    for rank, original in enumerate(originals):
        setup = RankSetup(world_size=2, model_path=path, dtype=dtype, block_size=8, rank=rank, weights_peers=peers)
        assert same(load_rank(setup, Rank(rank), SECRET), original)
    for each in (*listeners, *nodes):
        each.close()
