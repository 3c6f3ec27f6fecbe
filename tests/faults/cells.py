"""What can go wrong at which step of a handover: the matrix, and why some of its cells are empty."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum


class Move(Enum):
    """From where to where the request is handed over when something goes wrong."""

    PREFILL = "P->D"
    LIVE = "live"

    @property
    def source(self) -> str:
        return "prefill-0" if self is Move.PREFILL else "decode-0"

    @property
    def destination(self) -> str:
        return "decode-0" if self is Move.PREFILL else "spare-0"


class Fault(Enum):
    """What happens to the victim.

    STALL: the whole process stands still. LATE: only the thread that came to the step does. DROP: a source loses its
    connections to the destination, a router those to both. CORRUPT: the next block that arrives. FULL: for a while no
    block is free. ABORT, GONE: by the client.
    """

    KILL = "kill -9"
    STALL = "stall 5 s"
    LATE = "late 5 s"
    DROP = "drop link"
    CORRUPT = "corrupt"
    FULL = "no blocks"
    ABORT = "abort"
    GONE = "gone"


SOURCE_STEPS = tuple(f"handover.source.{it}" for it in ("reserve", "transfer", "freeze", "pass", "release"))
RECEIVER_STEPS = tuple(f"handover.receiver.{it}" for it in ("reserve", "room", "arrive", "pass", "activate"))
ROUTER_STEPS = tuple(f"router.{it}" for it in ("grant", "commit", "close", "recover"))
STEPS = (*SOURCE_STEPS, *RECEIVER_STEPS, *ROUTER_STEPS)

VICTIMS = {
    Fault.KILL: ("source", "destination", "router"),
    Fault.STALL: ("source", "destination", "router"),
    Fault.LATE: ("source", "destination"),
    Fault.DROP: ("source", "router"),
    Fault.CORRUPT: ("destination",),
    Fault.FULL: ("source", "destination"),
    Fault.ABORT: ("client",),
    Fault.GONE: ("client",),
}

# After these no block is on its way any more that could be damaged.
_ALL_SENT = ("source.pass", "source.release", "receiver.pass", "receiver.activate", "router.commit", "router.close")


@dataclass(frozen=True, slots=True)
class Cell:
    move: Move
    step: str
    fault: Fault
    victim: str

    def __str__(self) -> str:
        return f"{self.move.value} {self.step}: {self.fault.value} ({self.victim})"

    @property
    def column(self) -> str:
        return self.fault.value if self.victim == "client" else f"{self.fault.value} {self.victim[0]}"

    @property
    def holder(self) -> str:
        """The party that comes to this step."""
        if self.step in ROUTER_STEPS:
            return "router"
        return self.party("source" if self.step in SOURCE_STEPS else "destination")

    @property
    def victim_party(self) -> str:
        return self.party(self.victim)

    def party(self, part: str) -> str:
        return {"source": self.move.source, "destination": self.move.destination, "router": "router"}[part]

    @property
    def why_not(self) -> str:
        """Why this cell makes no sense; nothing if it does."""
        if self.fault is Fault.CORRUPT and (self.step.endswith(_ALL_SENT) or self.step == "router.recover"):
            return "no block is on its way then"
        if self.step == "router.recover" and self.victim == "source":
            return "the source is dead already: that is what is recovered from"
        if self.fault is Fault.LATE and self.victim_party != self.holder:
            return "this step is not the victim's to be late with"
        return ""


def all_cells() -> Iterator[Cell]:
    for move in Move:
        for step in STEPS:
            for fault, victims in VICTIMS.items():
                for victim in victims:
                    yield Cell(move, step, fault, victim)
