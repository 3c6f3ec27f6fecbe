"""Instances in processes of their own: one gives another its weights, and dies while it gives them to another."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.handshake import draw_secret
from cluster.instance.config import InstanceInfo, WeightsPeer
from cluster.instance.peer_weights import load_weights
from cluster.instance.served_weights import part_of
from cluster.links.weights_receiver import WeightsReceiver
from cluster.messages import Holder
from cluster.model.decoder import Decoder
from cluster.model.held_tensors import held_tensors
from cluster.model.load import load_model
from cluster.role import InstanceRole
from tests.integration.instance_process import InstanceProcess, make_config
from tests.integration.local_cluster import MODEL_PATH

pytestmark = pytest.mark.integration

SECRET = draw_secret()


@pytest.fixture
def spoilt(tmp_path) -> Path:
    """The same checkpoint by all that is looked at, with other numbers in the middle."""
    path = tmp_path / "spoilt"
    shutil.copytree(MODEL_PATH, path)
    file = path / "model.safetensors"
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4096] = bytes(4096)
    file.write_bytes(content)
    return path


def process(name: str, path: Path, *peers: InstanceInfo, armed: str = "") -> InstanceProcess:
    config = make_config(name, InstanceRole.MIXED, path, SECRET, {})
    return InstanceProcess(replace(config, weights_peers=asked(*peers)), armed)


def asked(*infos: InstanceInfo) -> tuple[WeightsPeer, ...]:
    return tuple(WeightsPeer(name=it.name, incarnation=it.incarnation, link_address=it.link_address) for it in infos)


def held(model: Decoder) -> dict[str, np.ndarray]:
    return {name: tensor.read().numpy() for name, tensor in held_tensors(model).items()}


def weights_in(info: InstanceInfo) -> dict[str, np.ndarray]:
    """What that instance computes with."""
    arrays = {}
    part, holder = part_of(str(MODEL_PATH), "float32"), Holder(info.name, info.incarnation)
    with WeightsReceiver(info.link_address, holder, part, caller="test", secret=SECRET, timeout_s=10.0) as receiver:
        for name, shape in receiver.shapes.items():
            arrays[name] = np.empty(shape, np.float32)
            receiver.fetch(name, shape, arrays[name].reshape(-1).view(np.uint8).data)
    return arrays


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


async def test_a_new_instance_has_its_peers_weights_and_those_on_disk_when_the_peer_dies_on_the_way(spoilt):
    original, on_disk = (held(load_model(path, torch.float32)) for path in (MODEL_PATH, spoilt))
    assert not same(original, on_disk)
    first = process("first", MODEL_PATH, armed=f"links.weights.piece=kill@{len(original) + 5}")
    running = [first]
    try:
        info = await first.started()
        running.append(process("second", spoilt, info))
        assert same(await asyncio.to_thread(weights_in, await running[-1].started()), original)
        arguments = (str(spoilt), "float32", asked(info))
        third = await asyncio.to_thread(load_weights, *arguments, caller="third", secret=SECRET)
        assert same(held(third), on_disk)
        await first.wait()
        assert first.returncode != 0
    finally:
        for it in running:
            it.stdin.close()
        await asyncio.gather(*(it.wait() for it in running))
