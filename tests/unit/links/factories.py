"""Two instances' links in one process, and what they tell their engines."""

import os
import queue
import threading
from typing import Any

from cluster.links.config import LinkConfig
from cluster.links.kv_region import KvRegion
from cluster.links.link_listener import LinkListener
from cluster.links.outgoing_links import OutgoingLinks
from cluster.links.record_shape import RecordShape
from cluster.links.shared_region import SharedRegion
from cluster.links.slot_table import SlotTable
from cluster.messages import BlockTransfer, Epoch, Holder
from cluster.secret import SECRET_BYTES, ClusterSecret

RECORD_BYTES = 4096
EPOCH = Epoch(1, 1)
SECRET = ClusterSecret(bytes(SECRET_BYTES))
PATIENCE_S = 20.0
SOURCE_BLOCKS = (3, 4, 5, 0, 9)
TARGET_BLOCKS = (7, 1, 2, 3, 15)


class Events:
    """Every event as (name, arguments), in the order in which it was told."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[str, tuple[Any, ...]]] = queue.SimpleQueue()

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self._queue.put((name, arguments))

    def next(self, name: str) -> tuple[Any, ...]:
        """The next event, which has to be this one."""
        actual, arguments = self._queue.get(timeout=PATIENCE_S)
        assert actual == name, (actual, arguments)
        return arguments

    @property
    def is_silent(self) -> bool:
        return self._queue.empty()


class Node:
    """One rank of an instance: memory with random content, a listener, links to others."""

    def __init__(
        self,
        name: str,
        incarnation: int,
        num_blocks: int,
        record_bytes: int,
        config: LinkConfig,
        secret: ClusterSecret = SECRET,
        *,
        shape: RecordShape | None = None,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        self.holder = Holder(name, incarnation)
        self.events = Events()
        self.memory = SharedRegion.create(num_blocks * record_bytes)
        self.memory.buffer[:] = os.urandom(num_blocks * record_bytes)
        self.region = KvRegion(self.memory.buffer, record_bytes, self.memory.path, shape)
        self.slots = SlotTable(self.events.on_quiet)
        ranks: Any = {"rank": rank, "num_ranks": num_ranks}
        self.listener = LinkListener(
            self.holder, self.region, self.slots, config, self.events, secret=secret, host="127.0.0.1", **ranks
        )
        self.links = OutgoingLinks(self.holder, self.region, config, self.events, secret=secret, **ranks)

    def transfer(
        self,
        block_ids: tuple[int, ...],
        reservation: int = 1,
        first_block: int = 0,
        epoch: Epoch = EPOCH,
        checksums: tuple[int, ...] | None = None,
    ):
        return BlockTransfer(
            request_id="r",
            epoch=epoch,
            reservation=reservation,
            first_block=first_block,
            block_ids=block_ids,
            checksums=self.region.checksums(block_ids) if checksums is None else checksums,
        )

    def send(self, receiver: "Node", transfer: BlockTransfer) -> None:
        self.links.send(receiver.listener.address, receiver.holder, transfer)

    def content(self, block_ids: tuple[int, ...]) -> list[bytes]:
        return [self.region.records[block_id].tobytes() for block_id in block_ids]

    def close(self) -> None:
        self.links.close()
        self.listener.close()
        self.memory.close()


class Gate:
    """A failpoint that holds a link's thread in place until the test opens it."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self, *context: Any) -> None:
        self.reached.set()
        assert self.opened.wait(PATIENCE_S)
