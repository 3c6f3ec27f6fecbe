"""What TCP by itself gets between two hosts, with nothing of Baton in it.

Tried in between, on the same link, it tells a machine that cannot give what was set from a Baton that does not take it:
what a plain flow falls short by is forgiven, and no more. Nothing is where it gets what was set.
"""

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Self, TypeVar

from tests.netns.hosts import Host, be_prompt, enter_namespace

NUM_ROUND_TRIPS = 2
"""Of a transfer of KV, and so of ours: an offer and its answer, the bytes and the word that they are there."""

TRANSFER_S = 0.13
NUM_SMALL = 7
CHUNK_BYTES = 256 << 10
_NEARLY = 0.95

Made = TypeVar("Made")


class PlainFlow:
    """From `source` to `target`, on a link on which `bytes_per_s` were set, and `round_trip_s`."""

    def __init__(self, source: Host, target: Host, bytes_per_s: float, round_trip_s: float = 0.0) -> None:
        self._name = f"{source.name} -> {target.name}"
        self._bytes_per_s, self._latency_s = bytes_per_s, NUM_ROUND_TRIPS * round_trip_s
        self._num_bytes = int(bytes_per_s * TRANSFER_S)
        self._shares: list[float] = []
        self._late_s: list[float] = []
        with _made_on(target, lambda: socket.create_server((target.address, 0))) as listener:
            address = listener.getsockname()
            self._source = _made_on(source, lambda: socket.create_connection(address))
            self._target, _ = listener.accept()
        for end in (self._source, self._target):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._chunk, self._buffer = memoryview(bytes(CHUNK_BYTES)), bytearray(CHUNK_BYTES)
        self._threads = ThreadPoolExecutor(2, initializer=be_prompt)
        self._transfer_s(self._num_bytes)  # warms it up

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()
        self._source.close()
        self._target.close()
        if self._shares and self._share < _NEARLY:
            print(f"{self._name}: a plain flow gets only {self._share:.0%} of what was set; Baton is measured by that")

    def measure(self) -> None:
        """Once more: medians of all count."""
        self._late_s += [self._transfer_s(1) - self._latency_s for _ in range(NUM_SMALL)]
        should_take_s = self._latency_s + self._num_bytes / self._bytes_per_s
        self._shares.append(should_take_s / self._transfer_s(self._num_bytes))

    def forgive_rate(self, found: float) -> float:
        """What Baton would have found where this machine gives what was set."""
        return max(found, min(self._bytes_per_s, found / self._share))

    def forgive_latency(self, found_s: float) -> float:
        return min(found_s, max(self._latency_s, found_s - max(0.0, median(self._late_s))))

    @property
    def _share(self) -> float:
        return min(1.0, median(self._shares))

    def _transfer_s(self, num_bytes: int) -> float:
        receiving = self._threads.submit(self._receive, num_bytes)
        seconds = self._threads.submit(self._send_s, num_bytes).result()
        receiving.result()
        return seconds

    def _send_s(self, num_bytes: int) -> float:
        begin_s = time.monotonic()
        self._source.sendall(b"?")
        self._source.recv(1)
        for start in range(0, num_bytes, CHUNK_BYTES):
            self._source.sendall(self._chunk[: num_bytes - start])
        self._source.recv(1)
        return time.monotonic() - begin_s

    def _receive(self, num_bytes: int) -> None:
        self._target.recv(1)
        self._target.sendall(b"!")
        for start in range(0, num_bytes, CHUNK_BYTES):
            self._target.recv_into(self._buffer, min(num_bytes - start, CHUNK_BYTES), socket.MSG_WAITALL)
        self._target.sendall(b"!")


def _made_on(host: Host, make: Callable[[], Made]) -> Made:
    """What was made on a host stays there, whoever uses it: only a thread that is then gone has to go there."""

    def make_there() -> Made:
        enter_namespace(host.namespace)
        return make()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(make_there).result()
