"""Instances in processes of their own: one gives another its weights, and dies while it gives them once more."""

import asyncio
import os
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
from cluster.links.link_end import rank_addresses
from cluster.links.weights import WeightsPart
from cluster.links.weights_receiver import WeightsReceiver
from cluster.messages import Holder
from cluster.model.decoder import Decoder
from cluster.model.held_tensors import held_tensors
from cluster.model.load import load_model
from cluster.model.parallel import Alone
from cluster.role import InstanceRole
from tests.integration.instance_process import InstanceProcess, make_config
from tests.integration.local_cluster import MODEL_PATH

pytestmark = pytest.mark.integration

SECRET = draw_secret()
NUMS_OF_RANKS = [1, 2] if os.environ.get("BATON_ALL_RANKS") else [1]  # `make test-ranks`


class Rank(Alone):
    """That is loaded, and computes nothing."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank, self.world_size = rank, world_size


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


def process(name: str, path: Path, num_ranks: int, *peers: InstanceInfo, armed: str = "") -> InstanceProcess:
    config = make_config(name, InstanceRole.MIXED, path, SECRET, {"engine": {"tensor_parallel_size": num_ranks}})
    return InstanceProcess(replace(config, weights_peers=asked(*peers)), armed)


def asked(*infos: InstanceInfo) -> tuple[WeightsPeer, ...]:
    return tuple(WeightsPeer(name=it.name, incarnation=it.incarnation, link_address=it.link_address) for it in infos)


def held(model: Decoder) -> dict[str, np.ndarray]:
    return {name: tensor.read().numpy() for name, tensor in held_tensors(model).items()}


def loaded(path: Path, num_ranks: int) -> list[dict[str, np.ndarray]]:
    """By rank."""
    return [held(load_model(path, torch.float32, Rank(rank, num_ranks))) for rank in range(num_ranks)]


def weights_in(info: InstanceInfo) -> list[dict[str, np.ndarray]]:
    """What the ranks of that instance compute with."""
    addresses = rank_addresses(info.link_address)
    parts = [part_of(str(MODEL_PATH), "float32", rank, len(addresses)) for rank in range(len(addresses))]
    return [weights_at(address, info, part) for address, part in zip(addresses, parts, strict=True)]


def weights_at(address: str, info: InstanceInfo, part: WeightsPart) -> dict[str, np.ndarray]:
    arrays, holder = {}, Holder(info.name, info.incarnation)
    with WeightsReceiver(address, holder, part, caller="test", secret=SECRET, timeout_s=10.0) as receiver:
        for name, shape in receiver.shapes.items():
            arrays[name] = np.empty(shape, np.float32)
            receiver.fetch(name, shape, arrays[name].reshape(-1).view(np.uint8).data)
    return arrays


def same(one: list[dict[str, np.ndarray]], other: list[dict[str, np.ndarray]]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a) for a, b in pairs)


@pytest.mark.parametrize("num_ranks", NUMS_OF_RANKS)
async def test_ranks_have_their_peers_weights_and_those_on_disk_when_the_peer_dies_on_the_way(spoilt, num_ranks):
    original, on_disk = loaded(MODEL_PATH, num_ranks), loaded(spoilt, num_ranks)
    assert not same(original[:1], on_disk[:1])
    first = process("first", MODEL_PATH, num_ranks, armed=f"links.weights.piece=kill@{len(original[0]) + 5}")
    running = [first]
    try:
        info = await first.started()
        running.append(process("second", spoilt, num_ranks, info))
        assert same(await asyncio.to_thread(weights_in, await running[-1].started()), original)
        arguments = (str(spoilt), "float32", asked(info))
        rank = Rank(0, num_ranks)
        third = await asyncio.to_thread(load_weights, *arguments, caller="third", secret=SECRET, communicator=rank)
        assert same([held(third)], on_disk[:1])
        await first.wait()
        assert first.returncode != 0
    finally:
        for it in running:
            it.stdin.close()
        await asyncio.gather(*(it.wait() for it in running))
