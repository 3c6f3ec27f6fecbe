"""Where each request has been: a short list of steps, kept for a while after its end."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from router.errors import UnknownRequest
from router.ledger import Ledger, Note, Step
from router.observer import RouterObserver

# Requests that have ended, and steps of one request: the oldest ended go first, and so do the oldest steps but one.
MAX_ENDED = 1024
MAX_EVENTS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineEvent:
    """`at_s`: since the request's arrival."""

    at_s: float
    note: Note


@dataclass(slots=True, kw_only=True, eq=False)
class _Trace:
    arrival_s: float
    events: list[TimelineEvent] = field(default_factory=list)


class Timeline(RouterObserver):
    def __init__(self, ledger: Ledger, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger = ledger
        self._clock = clock
        self._running: dict[str, _Trace] = {}
        self._ended: OrderedDict[str, _Trace] = OrderedDict()

    def of(self, request_id: str) -> list[TimelineEvent]:
        """Oldest first. Raises UnknownRequest."""
        if request_id in self._ledger:
            trace = self._running.get(request_id)
            return list(trace.events) if trace else []  # it is queued, and nothing has happened to it yet
        if request_id not in self._ended:
            raise UnknownRequest(request_id)
        return list(self._ended[request_id].events)

    def on_note(self, note: Note) -> None:
        now_s = self._clock()
        trace = self._running.get(note.request_id)
        if trace is None:
            trace = self._running[note.request_id] = _Trace(arrival_s=self._arrival_s(note.request_id, now_s))
        trace.events.append(TimelineEvent(at_s=now_s - trace.arrival_s, note=note))
        if len(trace.events) > MAX_EVENTS:
            del trace.events[1]
        if note.step in (Step.FINISHED, Step.FAILED):
            self._end(note.request_id)

    def _arrival_s(self, request_id: str, now_s: float) -> float:
        """The first step is told while the ledger still knows the request, unless it ends with it."""
        entry = self._ledger.get(request_id)
        return entry.state.arrival_time_s if entry else now_s

    def _end(self, request_id: str) -> None:
        self._ended.pop(request_id, None)
        self._ended[request_id] = self._running.pop(request_id)
        while len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)
