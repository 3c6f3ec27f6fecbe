"""Waits on a socket end with their deadline, whatever the peer does."""

import socket
import threading
from collections.abc import Iterator

import pytest

from cluster.links.deadline import Deadline
from cluster.links.errors import LinkError
from cluster.links.frame_socket import FrameSocket

from .factories import PATIENCE_S

pytestmark = pytest.mark.unit

NUM_BYTES = 64 << 20
SIP_BYTES = 256 << 10
NUM_SIPS = 100


@pytest.fixture
def ends() -> Iterator[tuple[FrameSocket, socket.socket]]:
    """One end of a connection, and the bare other."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
    yield FrameSocket(sock), peer
    sock.close()
    peer.close()


class Sipper(threading.Thread):
    """Reads a little at a time, for longer than the deadlines here; then all that is left, unless it `was_spared`."""

    def __init__(self, peer: socket.socket) -> None:
        super().__init__(daemon=True)
        self._peer = peer
        self.was_spared = threading.Event()

    def run(self) -> None:
        for _ in range(NUM_SIPS):
            self._peer.recv(SIP_BYTES)
            if self.was_spared.wait(0.02):
                return
        while not self.was_spared.is_set() and self._peer.recv(1 << 20):
            pass


@pytest.mark.parametrize("num_views", [1, 16])
def test_a_peer_that_reads_slowly_does_not_put_off_the_deadline_of_a_send(ends, num_views):
    sock, peer = ends
    sipper = Sipper(peer)
    sipper.start()
    record = bytes(NUM_BYTES // num_views)
    with pytest.raises(LinkError, match=r"no answer within 0.3 s"):
        sock.send_views([record] * num_views, Deadline.after(0.3, "answer"))
    sipper.was_spared.set()
    sipper.join(PATIENCE_S)


def test_what_is_sent_in_parts_arrives_as_it_was(ends):
    sock, peer = ends
    views = [bytes([number]) * (3 << 20) for number in range(8)]
    received = bytearray()

    def read() -> None:
        while len(received) < 24 << 20 and (part := peer.recv(1 << 20)):
            received.extend(part)

    reader = threading.Thread(target=read)
    reader.start()
    sock.send_views(views, Deadline.after(PATIENCE_S, "answer"))
    reader.join(PATIENCE_S)
    assert received == b"".join(views)
