"""The streams of all requests that run, and for a while of those that have ended, with the timers of each."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from enum import Enum, auto

from router.streams import RequestStream

# Ended streams kept at once, whatever their time; the oldest goes first.
MAX_RETAINED = 1024


class Timer(Enum):
    DEADLINE = auto()
    GRACE = auto()
    RETENTION = auto()


class StreamStore:
    """In one event loop. An id belongs to a running request, or else to the last one that had it."""

    def __init__(self, retention_s: float) -> None:
        self._retention_s = retention_s
        self._running: dict[str, RequestStream] = {}
        self._retained: OrderedDict[str, RequestStream] = OrderedDict()
        self._timers: dict[tuple[str, Timer], asyncio.TimerHandle] = {}

    def __iter__(self) -> Iterator[RequestStream]:
        """Those that run."""
        return iter(self._running.values())

    @property
    def num_retained(self) -> int:
        return len(self._retained)

    def running(self, request_id: str) -> RequestStream | None:
        return self._running.get(request_id)

    def find(self, request_id: str) -> RequestStream | None:
        return self._running.get(request_id) or self._retained.get(request_id)

    def add(self, stream: RequestStream) -> None:
        self._drop_retained(stream.request.request_id)
        self._running[stream.request.request_id] = stream

    def end(self, request_id: str) -> RequestStream | None:
        """It runs no more; kept for a client that may come back. None: it did not run."""
        stream = self._running.pop(request_id, None)
        if stream is not None:
            self.cancel(request_id, Timer.DEADLINE)
            self.cancel(request_id, Timer.GRACE)
            if stream.is_resumable:
                self._retain(request_id, stream)
        return stream

    def _retain(self, request_id: str, stream: RequestStream) -> None:
        self._retained[request_id] = stream
        self.start(request_id, Timer.RETENTION, self._retention_s, self._drop_retained)
        while len(self._retained) > MAX_RETAINED:
            self._drop_retained(next(iter(self._retained)))

    def _drop_retained(self, request_id: str) -> None:
        self._retained.pop(request_id, None)
        self.cancel(request_id, Timer.RETENTION)

    def start(self, request_id: str, timer: Timer, delay_s: float, act: Callable[[str], None]) -> None:
        """`act` is given the id, once, unless the timer is cancelled or started again before."""
        self.cancel(request_id, timer)
        key = (request_id, timer)
        self._timers[key] = asyncio.get_running_loop().call_later(max(0.0, delay_s), self._fire, key, act)

    def cancel(self, request_id: str, timer: Timer) -> None:
        if handle := self._timers.pop((request_id, timer), None):
            handle.cancel()

    def close(self) -> None:
        for handle in self._timers.values():
            handle.cancel()
        self._timers.clear()
        self._retained.clear()

    def _fire(self, key: tuple[str, Timer], act: Callable[[str], None]) -> None:
        del self._timers[key]
        act(key[0])
