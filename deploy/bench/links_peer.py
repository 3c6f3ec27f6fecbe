"""The receiving process of `baton bench links`: a link listener, and the plain means that links are compared with."""

import socket
from multiprocessing.connection import Connection
from typing import Any

from cluster.links.config import LinkConfig
from cluster.links.frame_socket import size_buffers
from cluster.links.kv_region import KvRegion
from cluster.links.link_listener import LinkListener
from cluster.links.shared_region import SharedRegion, map_peer_region
from cluster.links.slot_table import SlotTable
from cluster.messages import Epoch, Holder
from cluster.secret import ClusterSecret

SOURCE, RECEIVER = Holder("source", 1), Holder("receiver", 1)
EPOCH = Epoch(1, 1)


class Quiet:
    """The source times transfers; the receiver has nothing to add."""

    def on_arrived(self, reservation: int, first_block: int, count: int, checksums: tuple[int, ...]) -> None:
        pass

    def on_bad(self, reservation: int, reason: str) -> None:
        raise RuntimeError(reason)

    def on_damaged(self) -> None:
        raise RuntimeError("a damaged block")

    def on_unauthenticated(self) -> None:
        raise RuntimeError("a stranger")

    def on_malformed(self) -> None:
        raise RuntimeError("nonsense")


def serve(control: Connection, secret: ClusterSecret, source_path: str, num_bytes: int, record_bytes: int) -> None:
    """Obeys (command, ...) until ("end",). Answers before the clock starts, and, where there is no link, when done."""
    memory = SharedRegion.create(num_bytes)
    memory.buffer[:] = bytes(num_bytes)
    slots = SlotTable(lambda reservation: None)
    region = KvRegion(memory.buffer, record_bytes, memory.path)
    config = LinkConfig(checksum=False)  # accepts offers with checksums, and checks those, and offers without
    listener = LinkListener(RECEIVER, region, slots, config, Quiet(), secret=secret, host="127.0.0.1")
    source = memoryview(map_peer_region(source_path, num_bytes))
    with socket.create_server(("127.0.0.1", 0)) as server:
        size_buffers(server)
        control.send((listener.address, server.getsockname()))
        raw, _ = server.accept()
    with raw:
        while (command := control.recv())[0] != "end":
            _obey(command, control, slots, memory.buffer, source, raw)
    source.release()
    listener.close()


def _obey(
    command: tuple[str, Any],
    control: Connection,
    slots: SlotTable,
    memory: memoryview,
    source: memoryview,
    raw: socket.socket,
) -> None:
    name, argument = command
    if name == "open":
        slots.close(argument[0])
        slots.open(argument[0], SOURCE, EPOCH, argument[1], 0)
        control.send_bytes(b"ready")
    elif name == "close":
        slots.close(argument)
    elif name == "shared memory":
        control.send_bytes(b"ready")
        control.recv_bytes()
        memory[argument[1]] = source[argument[0]]
        control.send_bytes(b"done")
    elif name == "raw tcp":
        control.send_bytes(b"ready")
        target, received = memory[argument], 0
        while received < target.nbytes:
            received += raw.recv_into(target[received:], 0, socket.MSG_WAITALL)
        raw.sendall(b"d")
