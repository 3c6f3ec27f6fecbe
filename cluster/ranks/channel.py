"""Frames between two ranks on a TCP socket. That the other end is gone is noticed at once, whatever is under way."""

import contextlib
import select
import socket
import struct
import time

from cluster.pb.ranks_pb2 import RankFrame

MAX_FRAME_BYTES = 256 << 20
KEEPALIVE_S = 1
"""A host that vanished says nothing; one that is asked every second and silent for so many times is gone."""
KEEPALIVE_PROBES = 3
GONE_AFTER_S = KEEPALIVE_S * (1 + KEEPALIVE_PROBES)
"""Also while something is on its way to it: then the kernel asks nothing, and would repeat it for a quarter of an hour.
Who takes nothing for so long, with all buffers full, is gone as well."""

_LENGTH = struct.Struct("<I")


class RankChannel:
    """One thread sends at a time, one receives; any may `shutdown` and `wait_until_gone`. All failures are OSErrors."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._deadline_s: float | None = None
        self._max_frame_bytes = MAX_FRAME_BYTES
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, GONE_AFTER_S * 1000)

    def limit(self, timeout_s: float | None, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        """How long all that is sent and received may take from now on, and how large a frame may be that comes."""
        self._deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        self._max_frame_bytes = max_frame_bytes
        self._socket.settimeout(timeout_s)

    def send(self, payload: bytes) -> None:
        self._keep_deadline()
        self._socket.sendall(_LENGTH.pack(len(payload)) + payload)

    def receive(self) -> bytes | None:
        """None: the other end is gone."""
        if (head := self._read(_LENGTH.size)) is None:
            return None
        (num_bytes,) = _LENGTH.unpack(head)
        if num_bytes > self._max_frame_bytes:
            raise ConnectionError(f"a frame of {num_bytes} bytes: not a rank")
        return self._read(num_bytes)

    def say(self, **message: object) -> None:
        """A RankFrame with this one message."""
        self.send(RankFrame(**message).SerializeToString())  # type: ignore[arg-type]

    def hear(self, *kinds: str) -> RankFrame:
        """The next RankFrame; if it is not of these kinds, a ConnectionError says what it was."""
        if (frame := self.hear_any()) is None:
            raise ConnectionError("its process is gone")
        if (found := frame.WhichOneof("message")) == "failed":
            raise ConnectionError(frame.failed.problem)
        if found not in kinds:
            raise ConnectionError(f"it sent {found}, not {' or '.join(kinds)}")
        return frame

    def hear_any(self) -> RankFrame | None:
        """The next RankFrame; None: the other end is gone."""
        if (payload := self.receive()) is None:
            return None
        try:
            return RankFrame.FromString(payload)
        except Exception as error:  # protobuf's DecodeError is private to its implementation
            raise ConnectionError(f"not a rank's frame: {error}") from error

    def wait_until_gone(self) -> None:
        """Returns when the other end has hung up, or this one was shut down; what was sent before can still be read."""
        poll = select.poll()
        poll.register(self._socket, select.POLLRDHUP)
        poll.poll()

    def shutdown(self) -> None:
        """Wakes whoever uses this channel, here and at the other end."""
        with contextlib.suppress(OSError):  # not connected, or gone already
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()

    def _read(self, num_bytes: int) -> bytes | None:
        buffer = bytearray(num_bytes)
        view = memoryview(buffer)
        while view:
            self._keep_deadline()
            try:
                count = self._socket.recv_into(view)
            except ConnectionResetError:
                return None
            if not count:
                return None
            view = view[count:]
        return bytes(buffer)

    def _keep_deadline(self) -> None:
        if self._deadline_s is None:
            return
        if (remaining_s := self._deadline_s - time.monotonic()) <= 0:
            raise TimeoutError("timed out")
        self._socket.settimeout(remaining_s)
