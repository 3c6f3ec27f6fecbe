"""What happens to a deployment, as a numbered log that people can follow."""

import asyncio
from dataclasses import dataclass
from enum import Enum


class EventKind(Enum):
    STARTING = "starting"
    PROGRESS = "progress"
    PLACED = "placed"
    RUNNING = "running"
    GONE = "gone"
    READY = "ready"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def is_last(self) -> bool:
        return self in (EventKind.FAILED, EventKind.STOPPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`member`: an instance or the router; empty when it is about the deployment."""

    kind: EventKind
    member: str = ""
    text: str = ""


class EventLog:
    """In one event loop. Readers give the number of events they have and get those that follow."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._more = asyncio.Event()

    def add(self, kind: EventKind, member: str = "", text: str = "") -> None:
        self._events.append(Event(kind=kind, member=member, text=text))
        self._more.set()
        self._more = asyncio.Event()

    async def after(self, number: int) -> list[Event]:
        """At least one; waits for it."""
        while len(self._events) <= number:
            await self._more.wait()
        return self._events[number:]
