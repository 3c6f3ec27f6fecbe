"""The connections of one tcp link: a large transfer's records come over several of them at the same time."""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from cluster.links.errors import LinkError, MalformedFrame
from cluster.links.frame_socket import FrameSocket
from cluster.links.record_shape import Record
from cluster.links.worker import Job, Worker

MAX_CONNECTIONS = 8

# Moves these records, of which the first is the n-th of the transfer, over this connection.
Move = Callable[[FrameSocket, int, Sequence[Record]], None]


@dataclass(frozen=True, slots=True)
class _Lane:
    """A further connection, and the thread that uses it."""

    socket: FrameSocket
    worker: Worker


class Lanes:
    """`add`, `shutdown` and `num_connections` are for any thread, the rest for the link's.

    One connection that fails takes all with it.
    """

    def __init__(self, first: FrameSocket) -> None:
        self._first = first
        self._lock = threading.Lock()
        self._lanes: list[_Lane] = []
        self._joining: FrameSocket | None = None
        self._closed = False
        self._failure: Exception | None = None

    @property
    def num_connections(self) -> int:
        with self._lock:
            return 1 + len(self._lanes)

    @property
    def is_over(self) -> bool:
        with self._lock:
            return self._closed

    @contextlib.contextmanager
    def joining(self, sock: FrameSocket) -> Iterator[None]:
        """While it greets, it ends with the link. Raises LinkError when that is over."""
        with self._lock:
            if self._closed:
                raise LinkError("the link is over")
            self._joining = sock
        try:
            yield
        finally:
            with self._lock:
                self._joining = None

    def add(self, sock: FrameSocket) -> None:
        """It is the link's from now on. Raises LinkError, and then it is not."""
        with self._lock:
            if self._closed:
                raise LinkError("the link is over")
            if len(self._lanes) + 1 >= MAX_CONNECTIONS:
                raise LinkError(f"the link has {MAX_CONNECTIONS} connections already")
            try:
                worker = Worker("a link's further connection", lambda: None)
            except RuntimeError as error:
                raise LinkError(f"no thread for another connection: {error}") from error
            self._lanes.append(_Lane(sock, worker))

    def keep(self, num_connections: int) -> None:
        """Closes those beyond."""
        with self._lock:
            self._lanes, surplus = self._lanes[: num_connections - 1], self._lanes[num_connections - 1 :]
        _close(surplus)

    def run(self, records: Sequence[Record], num_connections: int, move: Move) -> None:
        """Raises LinkError. Law 9: however it ends, no connection touches a record any more."""
        if num_connections == 1:
            self._move(move, self._first, 0, records)
            return
        with self._lock:
            lanes = self._lanes[: num_connections - 1]
        if len(lanes) < num_connections - 1:
            raise MalformedFrame(f"records over {num_connections} connections of {len(lanes) + 1}")
        starts = [len(records) * index // (len(lanes) + 1) for index in range(len(lanes) + 2)]
        shares = [(start, records[start:end]) for start, end in itertools.pairwise(starts)]
        jobs = [
            lane.worker.submit(partial(self._move, move, lane.socket, *share))
            for lane, share in zip(lanes, shares[1:], strict=True)
        ]
        with contextlib.suppress(Exception):  # _failure has it
            self._move(move, self._first, *shares[0])
        for job in jobs:
            job.done.wait()
        if self._failure is not None:
            raise LinkError(str(self._failure)) from self._failure

    def shutdown(self) -> None:
        """Whatever is under way on any connection ends soon."""
        with self._lock:
            self._closed = True
            sockets = [self._first, *(lane.socket for lane in self._lanes)]
            if self._joining is not None:
                sockets.append(self._joining)
        for sock in sockets:
            sock.shutdown()

    def close(self) -> None:
        """The first connection is left to its owner."""
        with self._lock:
            self._closed = True
            lanes, self._lanes = self._lanes, []
        _close(lanes)

    def _move(self, move: Move, sock: FrameSocket, first: int, records: Sequence[Record], _: Job | None = None) -> None:
        try:
            move(sock, first, records)
        except Exception as error:
            self._failure = self._failure or error  # what follows from it is less telling
            self.shutdown()
            raise


def _close(lanes: Sequence[_Lane]) -> None:
    for lane in lanes:
        lane.socket.shutdown()
    for lane in lanes:
        lane.worker.stop()
        lane.socket.close()
