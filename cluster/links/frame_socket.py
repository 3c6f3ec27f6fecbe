"""LinkFrames and blocks on a TCP socket, each wait under a deadline."""

import contextlib
import socket
import struct
from typing import Any

from cluster.links.deadline import Deadline
from cluster.links.errors import LinkError
from cluster.pb.links_pb2 import LinkFrame

SOCKET_BUFFER_BYTES = 4 << 20  # docs/measurements/links-cpu.md
MAX_FRAME_BYTES = 4 << 20
KEEPALIVE_S = 5

_LENGTH = struct.Struct("<I")
_TIMEVAL = struct.Struct("ll")


class FrameSocket:
    """Every failure is a LinkError that says what was tried.

    The socket is blocking with kernel timeouts (SO_RCVTIMEO), not Python's: MSG_WAITALL then fills a whole run in one
    call, without coming back to take the interpreter lock for each segment.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A host that vanished while the link was idle is noticed, so that its thread and socket go.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_S)
        size_buffers(sock)

    @classmethod
    def to(cls, address: str) -> tuple["FrameSocket", Any]:
        """An unconnected socket for `host:port`, and the address to connect it to."""
        host, _, port = address.rpartition(":")
        try:
            family, kind, protocol, _, sockaddr = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        except OSError as error:
            raise LinkError(f"{address}: {error}") from error
        return cls(socket.socket(family, kind, protocol)), sockaddr

    def connect(self, sockaddr: Any, deadline: Deadline) -> None:
        self._limit(socket.SO_SNDTIMEO, deadline)
        try:
            self._socket.connect(sockaddr)
        except BlockingIOError as error:
            raise deadline.missed() from error
        except OSError as error:
            raise LinkError(f"connecting to {sockaddr[0]}:{sockaddr[1]}: {error}") from error

    def send(self, frame: LinkFrame, deadline: Deadline) -> None:
        payload = frame.SerializeToString()
        self.send_bytes(memoryview(_LENGTH.pack(len(payload)) + payload), deadline)

    def send_bytes(self, view: memoryview, deadline: Deadline) -> None:
        self._limit(socket.SO_SNDTIMEO, deadline)
        try:
            self._socket.sendall(view)
        except BlockingIOError as error:
            raise deadline.missed() from error
        except OSError as error:
            raise LinkError(f"sending: {error}") from error

    def receive(self, deadline: Deadline | None) -> LinkFrame | None:
        """None: the peer closed between two frames. Without a deadline it waits while the peer's host lives."""
        header = memoryview(bytearray(_LENGTH.size))
        if not self._receive_into(header, deadline):
            return None
        (length,) = _LENGTH.unpack(header)
        if length > MAX_FRAME_BYTES:
            raise LinkError(f"a frame of {length} bytes: not a link")
        payload = memoryview(bytearray(length))
        if length and not self._receive_into(payload, deadline):
            raise LinkError("the stream ends within a frame")
        try:
            return LinkFrame.FromString(bytes(payload))
        except Exception as error:  # protobuf's DecodeError is private to its implementation
            raise LinkError(f"not a link frame: {error}") from error

    def expect(self, deadline: Deadline) -> LinkFrame:
        if (frame := self.receive(deadline)) is None:
            raise LinkError("the peer closed the link")
        return frame

    def receive_bytes(self, view: memoryview, deadline: Deadline) -> None:
        if not self._receive_into(view, deadline):
            raise LinkError("the stream ends within a transfer")

    def is_open(self) -> bool:
        """Whether the peer is still there and has said nothing more."""
        try:
            self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def fileno(self) -> int:
        return self._socket.fileno()

    def shutdown(self) -> None:
        """Wakes the thread that uses this socket; the only method for other threads."""
        with contextlib.suppress(OSError):  # not connected, or gone already
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()

    def _receive_into(self, view: memoryview, deadline: Deadline | None) -> bool:
        """False when the stream ends before the first byte."""
        received = 0
        while received < view.nbytes:
            self._limit(socket.SO_RCVTIMEO, deadline)
            try:
                count = self._socket.recv_into(view[received:], 0, socket.MSG_WAITALL)
            except BlockingIOError as error:
                assert deadline is not None
                raise deadline.missed() from error
            except OSError as error:
                raise LinkError(f"receiving: {error}") from error
            if not count and not received:
                return False
            if not count:
                raise LinkError(f"the stream ends {view.nbytes - received} bytes early")
            received += count
        return True

    def _limit(self, option: int, deadline: Deadline | None) -> None:
        # 0 would mean for ever.
        microseconds = 0 if deadline is None else max(1, int(deadline.remaining_s() * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(*divmod(microseconds, 1_000_000)))


def size_buffers(sock: socket.socket) -> None:
    """Also for a listening socket: what it accepts inherits them, early enough for the window scale."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
