"""LinkFrames and blocks on a TCP socket, each wait under a deadline."""

import contextlib
import math
import select
import socket
import struct
from collections.abc import Sequence
from typing import Any

from cluster.links.deadline import Deadline
from cluster.links.errors import LinkError, MalformedFrame
from cluster.pb.links_pb2 import LinkFrame

SOCKET_BUFFER_BYTES = 4 << 20  # docs/measurements/links-cpu.md
MAX_FRAME_BYTES = 4 << 20
KEEPALIVE_S = 5
# A wait may outlast its deadline by so long: a transfer then seldom needs a system call to set the kernel's timeout.
SLACK_S = 0.1

_LENGTH = struct.Struct("<I")
_TIMEVAL = struct.Struct("ll")


class FrameSocket:
    """Every failure is a LinkError that says what was tried. `shutdown` is the only method for other threads.

    The socket is blocking with kernel timeouts (SO_RCVTIMEO), not Python's: MSG_WAITALL then fills many records in one
    call, without coming back to take the interpreter lock for each segment. At most one frame is ever under way in a
    direction, and no block follows one unasked; so what a read returns beyond a frame is an error.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._granted_s = {socket.SO_SNDTIMEO: math.inf, socket.SO_RCVTIMEO: math.inf}
        self._buffer = bytearray(1 << 16)
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
            sock = socket.socket(family, kind, protocol)
        except (OSError, UnicodeError) as error:  # no such host, no name of any, or no descriptor left
            raise LinkError(f"{address}: {error}") from error
        return cls(sock), sockaddr

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
        self.send_views((_LENGTH.pack(len(payload)), payload), deadline)

    def send_views(self, views: Sequence[memoryview | bytes], deadline: Deadline) -> None:
        """All of them, in order, from where they are."""
        unsent = [memoryview(view) for view in views]
        while unsent:
            self._limit(socket.SO_SNDTIMEO, deadline)
            try:
                _skip(unsent, self._socket.sendmsg(unsent))
            except BlockingIOError:
                continue  # as in _receive
            except OSError as error:
                raise LinkError(f"sending: {error}") from error

    def receive_views(self, views: Sequence[memoryview], deadline: Deadline) -> None:
        """Fills all of them, in order."""
        unfilled = list(views)
        while unfilled:
            count = self._receive(unfilled, socket.MSG_WAITALL, deadline)
            if not count:
                raise LinkError("the stream ends within a transfer")
            _skip(unfilled, count)

    def receive(self, deadline: Deadline | None) -> LinkFrame | None:
        """None: the peer closed between two frames. Without a deadline it waits while the peer's host lives."""
        received, size = 0, _LENGTH.size
        while received < size:
            count = self._receive([memoryview(self._buffer)[received:]], 0, deadline)
            if not count and not received:
                return None
            if not count:
                raise LinkError("the stream ends within a frame")
            received += count
            if received >= _LENGTH.size:
                size = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
                self._make_room(size)
        if received > size:
            raise MalformedFrame("more than one frame at a time")
        try:
            return LinkFrame.FromString(bytes(memoryview(self._buffer)[_LENGTH.size : size]))
        except Exception as error:  # protobuf's DecodeError is private to its implementation
            raise MalformedFrame(f"not a link frame: {error}") from error

    def expect(self, deadline: Deadline) -> LinkFrame:
        if (frame := self.receive(deadline)) is None:
            raise LinkError("the peer closed the link")
        return frame

    def is_open(self) -> bool:
        """Whether the peer is still there and has said nothing more."""
        try:
            self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def has_hung_up(self) -> bool:
        """Whether the peer, or `shutdown`, ended the stream; what was said before may still be there to read."""
        poll = select.poll()
        poll.register(self._socket, select.POLLRDHUP)
        return bool(poll.poll(0))

    def fileno(self) -> int:
        return self._socket.fileno()

    def shutdown(self) -> None:
        """Wakes the thread that uses this socket."""
        with contextlib.suppress(OSError):  # not connected, or gone already
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()

    def _receive(self, views: Sequence[memoryview], flags: int, deadline: Deadline | None) -> int:
        """Bytes received; 0 at the end of the stream."""
        while True:
            if deadline is not None:
                self._limit(socket.SO_RCVTIMEO, deadline)
            try:
                return self._socket.recvmsg_into(views, 0, flags)[0]
            except BlockingIOError:
                continue  # the kernel's timeout: whether it is ours, or left over from an earlier wait, _limit knows
            except OSError as error:
                raise LinkError(f"receiving: {error}") from error

    def _limit(self, option: int, deadline: Deadline) -> None:
        remaining_s = deadline.remaining_s()
        if not remaining_s <= self._granted_s[option] <= remaining_s + SLACK_S:
            self._granted_s[option] = remaining_s + SLACK_S
            microseconds = int(self._granted_s[option] * 1e6)
            self._socket.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(*divmod(microseconds, 1_000_000)))

    def _make_room(self, size: int) -> None:
        if size > MAX_FRAME_BYTES:
            raise MalformedFrame(f"a frame of {size} bytes: not a link")
        if size > len(self._buffer):
            self._buffer.extend(bytes(size - len(self._buffer)))


def _skip(views: list[memoryview], count: int) -> None:
    """Leaves what comes after so many bytes."""
    while views and count >= views[0].nbytes:
        count -= views.pop(0).nbytes
    if count:
        views[0] = views[0][count:]


def size_buffers(sock: socket.socket) -> None:
    """Also for a listening socket: what it accepts inherits them, early enough for the window scale."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
