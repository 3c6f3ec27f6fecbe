"""Nodes whose KV memory is on a (fake) GPU, beside those of `factories.py`."""

import os
from typing import Any

import numpy as np

from cluster.links.config import LinkConfig
from cluster.links.device_region import DeviceRegion
from cluster.links.link_listener import LinkListener
from cluster.links.nccl import CupyDevice
from cluster.links.outgoing_links import OutgoingLinks
from cluster.links.record_shape import RecordShape
from cluster.links.slot_table import SlotTable
from cluster.messages import Holder

from .factories import RECORD_BYTES, SECRET, Events, Node
from .fake_nccl import FakeCupy, World


class GpuNode(Node):
    def __init__(
        self,
        world: World,
        name: str,
        config: LinkConfig,
        *,
        num_blocks: int = 16,
        record_bytes: int = RECORD_BYTES,
        max_communicators: int = 4,
        shape: RecordShape | None = None,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        self.holder = Holder(name, 1)
        self.events = Events()
        self._world = world
        self._num_bytes = num_blocks * record_bytes
        self._pointer = world.allocate(self._num_bytes)
        self.cupy = FakeCupy(world)
        device = CupyDevice(0, self.cupy)
        self.region = DeviceRegion(
            device,
            pointer=self._pointer,
            record_bytes=record_bytes,
            num_records=num_blocks,
            checksums=device.checksummer(self._pointer, record_bytes),
            max_communicators=max_communicators,
            shape=shape,
        )
        self.records[:] = np.frombuffer(os.urandom(self._num_bytes), np.uint8).reshape(num_blocks, record_bytes)
        self.slots = SlotTable(self.events.on_quiet)
        ranks: Any = {"rank": rank, "num_ranks": num_ranks}
        self.listener = LinkListener(
            self.holder, self.region, self.slots, config, self.events, secret=SECRET, host="127.0.0.1", **ranks
        )
        self.links = OutgoingLinks(self.holder, self.region, config, self.events, secret=SECRET, **ranks)

    @property
    def records(self) -> np.ndarray:
        return self._world.view(self._pointer, self._num_bytes).reshape(-1, self.region.record_bytes)

    def content(self, block_ids: tuple[int, ...]) -> list[bytes]:
        return [self.records[block_id].tobytes() for block_id in block_ids]

    def close(self) -> None:
        self.links.close()
        self.listener.close()
