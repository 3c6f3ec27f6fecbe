"""Instances on GPUs that are not there, in this one process: each rank is a thread, computes on the CPU, and moves its
blocks by the fake NCCL. What is taken from them is torch's CUDA; what starts, agrees, follows and moves is what runs.
"""

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from cluster.instance.config import InstanceConfig, InstanceInfo
from cluster.instance.instance import Instance
from cluster.links.nccl import CupyDevice
from cluster.model import device as device_module
from cluster.model.kv_cache import KVCache
from cluster.ranks import gpu_part, load
from cluster.ranks.follower import Follower
from cluster.ranks.weights import load_rank
from cluster.role import InstanceRole
from deploy.roles import ROLE_POLICIES
from tests.integration.instance_process import make_config
from tests.integration.local_cluster import LocalCluster
from tests.unit.links.fake_nccl import FakeCupy, World

GPU = torch.device("cuda", 0)
ROOM = 40
"""Blocks on a GPU of rank 0; each further rank has one less."""


class Collectives:
    """What ranks of one group give each other, one operation after the other."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self.changed = threading.Condition()
        self.given: dict[int, dict[int, Tensor]] = {}


class ThreadCommunicator:
    """As NCCL's: an operation that was aborted looks complete, with whatever is there."""

    def __init__(self, collectives: Collectives, rank: int) -> None:
        self.rank, self.world_size = rank, collectives.world_size
        self._all = collectives
        self._number = 0
        self.is_aborted = False

    def all_reduce(self, tensor: Tensor) -> Tensor:
        if parts := self._exchange(tensor):
            tensor.copy_(torch.stack(parts).sum(0))
        return tensor

    def gather_columns(self, tensor: Tensor) -> Tensor | None:
        parts = self._exchange(tensor) or [tensor] * self.world_size
        return None if self.rank else torch.cat(parts, dim=-1)

    def abort(self) -> None:
        with self._all.changed:
            self.is_aborted = True
            self._all.changed.notify_all()

    def _exchange(self, tensor: Tensor) -> list[Tensor]:
        with self._all.changed:
            self._number += 1
            given = self._all.given.setdefault(self._number, {})
            given[self.rank] = tensor.clone()
            self._all.changed.notify_all()
            self._all.changed.wait_for(lambda: len(given) == self.world_size or self.is_aborted)
            self._all.given.pop(self._number - 1, None)  # all have that: they are here
            return [given[rank] for rank in range(self.world_size)] if len(given) == self.world_size else []


def install(world: World, monkeypatch: pytest.MonkeyPatch) -> list[ThreadCommunicator]:
    """From now on there is a GPU for whoever asks. With every communicator that is made."""
    made: list[ThreadCommunicator] = []
    groups: dict[int, Collectives] = {}
    lock = threading.Lock()

    def join(store: Any, rank: int, world_size: int, **options: object) -> ThreadCommunicator:
        with lock:
            made.append(ThreadCommunicator(groups.setdefault(store.port, Collectives(world_size)), rank))
            return made[-1]

    def make_cache(*shape: Any, device: torch.device) -> KVCache:
        assert device == GPU
        kv_cache = KVCache(*shape)
        world.adopt(kv_cache.tensor.data_ptr(), kv_cache.tensor.view(-1).view(torch.uint8).numpy())
        return kv_cache

    def load_on_cpu(setup: Any, communicator: Any, secret: Any, device: torch.device, progress: Any) -> Any:
        assert device == GPU
        return load_rank(setup, communicator, secret, torch.device("cpu"), progress)

    monkeypatch.setattr(device_module, "find_device", lambda name: GPU)
    monkeypatch.setattr(load, "find_device", lambda name: GPU)
    monkeypatch.setattr(load, "join_nccl", join)
    monkeypatch.setattr(gpu_part, "use_device", lambda device: None)
    monkeypatch.setattr(gpu_part, "free_bytes", lambda device: 1 << 40)
    monkeypatch.setattr(gpu_part, "CupyDevice", lambda index, cuda: CupyDevice(index, FakeCupy(world)))
    monkeypatch.setattr(gpu_part, "load_rank", load_on_cpu)
    monkeypatch.setattr(gpu_part, "measure_num_blocks", lambda model, *_, **__: ROOM - model.communicator.rank)
    monkeypatch.setattr(gpu_part, "KVCache", make_cache)
    return made


class FollowerThreads:
    """Ranks 1 and up. `problems`: what a follower ended with, but for being told to."""

    def __init__(self, config: InstanceConfig) -> None:
        self.problems: list[BaseException] = []
        count = config.engine.tensor_parallel_size - 1
        self._followers = [Follower(config.secret, config.host) for _ in range(count)]
        self._threads = [threading.Thread(target=self._follow, args=(it,), daemon=True) for it in self._followers]
        for thread in self._threads:
            thread.start()
        self.addresses = tuple(follower.address for follower in self._followers)

    def _follow(self, follower: Follower) -> None:
        try:
            follower.run(end_process=lambda code: None)
        except Exception as error:
            self.problems.append(error)

    def join(self, timeout_s: float) -> bool:
        """Whether all have ended."""
        for thread in self._threads:
            thread.join(timeout_s)
        return not any(thread.is_alive() for thread in self._threads)

    def close(self) -> None:
        for follower in self._followers:
            follower.close()


class ThreadedInstance:
    """What `LocalCluster` takes for a process."""

    returncode: int | None = None

    def __init__(self, config: InstanceConfig) -> None:
        self.stdin = self
        self._followers = FollowerThreads(config)
        self.instance = Instance(replace(config, rank_addresses=self._followers.addresses), ROLE_POLICIES)

    async def started(self) -> InstanceInfo:
        return await self.instance.start()

    def send_signal(self, number: int) -> None:
        pass

    def close(self) -> None:
        pass

    async def wait(self) -> None:
        if self.returncode is None:
            self.returncode = 0
            await self.instance.stop()
            await asyncio.to_thread(self._followers.join, 10.0)
            self._followers.close()


class GpuCluster(LocalCluster):
    def _make_process(self, name: str, role: str, options: dict[str, Any]) -> Any:
        return ThreadedInstance(make_config(name, InstanceRole(role), self._model_path, self.secret, options))
