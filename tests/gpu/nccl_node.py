"""A node whose KV memory is on a real GPU, in this process or in one of its own."""

import os
import queue
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from cluster import failpoints
from cluster.links.config import LinkConfig
from cluster.links.device_region import DeviceRegion
from cluster.links.link_listener import LinkListener
from cluster.links.nccl import CupyDevice
from cluster.links.outgoing_links import OutgoingLinks
from cluster.links.record_shape import RecordShape
from cluster.links.slot_table import SlotTable
from cluster.messages import BlockTransfer, Holder
from tests.unit.links.factories import EPOCH, SECRET, Events

# Before NCCL reads them: two ranks on one GPU (2.30 and later), in kernels small enough to run side by side.
ENVIRONMENT = {"NCCL_MULTI_RANK_GPU_ENABLE": "1", "NCCL_NVLS_ENABLE": "0", "NCCL_MAX_CTAS": "2"}
NUM_BLOCKS = 512
SOURCE = Holder("prefill-0", 1)  # of everything that comes to a node in a process of its own


class GpuNode:
    def __init__(
        self,
        name: str,
        device_id: int,
        record_bytes: int,
        config: LinkConfig,
        max_communicators: int,
        *,
        shape: RecordShape | None = None,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        import cupy

        device = CupyDevice(device_id)
        device.bind()
        self._runtime = cupy.cuda.runtime
        self._memory = device.allocate(NUM_BLOCKS * record_bytes)
        self.record_bytes = record_bytes
        self.holder = Holder(name, 1)
        self.events = Events()
        self.region = DeviceRegion(
            device,
            pointer=self._memory.pointer,
            record_bytes=record_bytes,
            num_records=NUM_BLOCKS,
            checksums=device.checksummer(self._memory.pointer, record_bytes),
            max_communicators=max_communicators,
            shape=shape,
        )
        self.write(os.urandom(NUM_BLOCKS * record_bytes))
        self.slots = SlotTable(self.events.on_quiet)
        ranks: Any = {"rank": rank, "num_ranks": num_ranks}
        self.listener = LinkListener(
            self.holder, self.region, self.slots, config, self.events, secret=SECRET, host="127.0.0.1", **ranks
        )
        self.links = OutgoingLinks(self.holder, self.region, config, self.events, secret=SECRET, **ranks)

    def write(self, content: bytes) -> None:
        host = np.frombuffer(content, np.uint8)
        self._runtime.memcpy(self._memory.pointer, host.ctypes.data, host.nbytes, self._runtime.memcpyHostToDevice)
        self._runtime.deviceSynchronize()

    def content(self, block_ids: tuple[int, ...]) -> bytes:
        host = np.empty((len(block_ids), self.record_bytes), np.uint8)
        for row, block_id in zip(host, block_ids, strict=True):
            self._runtime.memcpy(
                row.ctypes.data, self.region.pointer_of(block_id), self.record_bytes, self._runtime.memcpyDeviceToHost
            )
        return host.tobytes()

    def send(self, address: str, receiver: Holder, block_ids: tuple[int, ...], reservation: int) -> None:
        transfer = BlockTransfer(
            request_id="r",
            epoch=EPOCH,
            reservation=reservation,
            first_block=0,
            block_ids=block_ids,
            checksums=self.region.checksums(block_ids),
        )
        self.links.send(address, receiver, transfer)

    def close(self) -> None:
        self.links.close()
        self.listener.close()


def serve(control: Connection, name: str, device_id: int, record_bytes: int, options: dict[str, Any]) -> None:
    """A receiver in a process of its own: answers ("open", reservation, block ids), ("content", ids), ("event",)."""
    os.environ.update(ENVIRONMENT)
    failpoints.arm_from_environment(options.pop("armed", ""))
    ranks = options.pop("ranks", {})
    node = GpuNode(name, device_id, record_bytes, LinkConfig(**options), max_communicators=8, **ranks)
    control.send(node.listener.address)
    while (command := control.recv())[0] != "end":
        if command[0] == "open":
            control.send(node.slots.open(command[1], SOURCE, EPOCH, command[2], 0))
        elif command[0] == "content":
            control.send(node.content(command[1]))
        elif command[0] == "event":
            control.send(_next_event(node.events))
    node.close()


def _next_event(events: Events) -> tuple[str, tuple[Any, ...]] | None:
    try:
        return events._queue.get(timeout=30)
    except queue.Empty:
        return None
