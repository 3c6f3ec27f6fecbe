"""Weights from one model on a GPU to another, through pinned memory and a link listener."""

import pytest
import torch

from cluster.instance.config import WeightsPeer
from cluster.instance.peer_weights import load_weights
from cluster.instance.served_weights import ServedWeights, part_of
from cluster.links.config import LinkConfig
from cluster.links.link_listener import LinkListener
from cluster.links.weights_sender import WeightsSender
from cluster.model.held_tensors import held_tensors
from cluster.model.load import load_model
from tests.unit.links.factories import SECRET, Node
from tests.unit.model.factories import checkpoint

pytestmark = pytest.mark.gpu

if not torch.cuda.is_available():
    pytest.skip("GPU tests need a GPU, and a torch that is built for it", allow_module_level=True)


@pytest.mark.parametrize("name", ["llama-mha-biased", "qwen3"])
def test_a_model_on_a_gpu_has_the_weights_of_its_peer_on_one(name):
    device, path = torch.device("cuda", 0), checkpoint(name)
    model = load_model(path, torch.bfloat16, device=device)
    node = Node("old", 1, 2, 64, LinkConfig())
    sender = WeightsSender(ServedWeights(model, part_of(str(path), "bfloat16")), piece_bytes=5000, timeout_s=10.0)
    options = {"secret": SECRET, "host": "127.0.0.1", "weights": sender}
    listener = LinkListener(node.holder, node.region, node.slots, LinkConfig(), node.events, **options)
    said: list[str] = []
    peer = WeightsPeer(name="old", incarnation=1, link_address=listener.address)
    found = load_weights(
        str(path), "bfloat16", [peer], caller="new", secret=SECRET, device=device, progress=said.append
    )
    assert said == ["loading weights from old"]
    ours, theirs = held_tensors(found), held_tensors(model)
    for tensor in theirs:
        assert ours[tensor].read().device == device
        assert torch.equal(ours[tensor].read(), theirs[tensor].read())
    listener.close()
    node.close()
