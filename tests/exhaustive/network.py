"""What is under way between the front and the instances, and who knows of whom: a value.

Front and instance speak over a stream: in order, and when it breaks, what was under way is lost and both ends learn of
it, each in its own time. So do two instances, but there single messages may also be lost, doubled or held back: a
stray arrives whenever it likes, or never.
"""

from collections.abc import Callable
from typing import NamedTuple


class Stream(NamedTuple):
    """`incarnation`: whom the front speaks to; `term`: of the front that the instance listens to. 0: nobody."""

    incarnation: int = 1
    term: int = 1
    down: tuple[int, ...] = ()
    up: tuple[int, ...] = ()


class Parcel(NamedTuple):
    """`message` by its number, from one life to another."""

    message: int
    from_life: int
    to_life: int


class Lane(NamedTuple):
    """`kind`: "control" of a source, "answer" of a receiver, "block" over a link; or strays of the first two."""

    kind: str
    sender: int
    receiver: int


STRAY = {"control": "stray control", "answer": "stray answer"}
STRAYS = frozenset(STRAY.values())


class Notice(NamedTuple):
    """Somebody is yet to learn that a life is over."""

    observer: int
    lost: int
    life: int


class Network(NamedTuple):
    """`lives`: the incarnation that each instance has now."""

    lives: tuple[int, ...]
    streams: tuple[Stream, ...]
    lanes: tuple[tuple[Lane, tuple[Parcel, ...]], ...] = ()
    notices: tuple[Notice, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not self.lanes and not any(stream.down or stream.up for stream in self.streams)

    def is_quiet(self, index: int) -> bool:
        """Nothing is under way to or from this instance."""
        stream = self.streams[index]
        return not (stream.down or stream.up or any(index in lane[1:] for lane, _ in self.lanes))


class Draft:
    """A network while something happens."""

    __slots__ = ("lanes", "lives", "notices", "streams")

    def __init__(self, network: Network) -> None:
        self.lives = list(network.lives)
        self.streams = list(network.streams)
        self.lanes = dict(network.lanes)
        self.notices = set(network.notices)

    def network(self) -> Network:
        lanes = tuple(sorted(item for item in self.lanes.items() if item[1]))
        return Network(tuple(self.lives), tuple(self.streams), lanes, tuple(sorted(self.notices)))

    def put(self, lane: Lane, parcel: Parcel) -> None:
        parcels = (*self.lanes.get(lane, ()), parcel)
        if lane.kind in STRAYS:  # in no order, and twice is no more than once
            parcels = tuple(sorted(set(parcels)))
        self.lanes[lane] = parcels

    def take(self, lane: Lane, position: int = 0) -> Parcel:
        parcels = self.lanes[lane]
        self.lanes[lane] = parcels[:position] + parcels[position + 1 :]
        return parcels[position]

    def keep(self, lane: Lane, which: Callable[[Parcel], bool]) -> None:
        self.lanes[lane] = tuple(parcel for parcel in self.lanes.get(lane, ()) if which(parcel))

    def clear(self, which: Callable[[Lane], bool]) -> None:
        self.lanes = {lane: parcels for lane, parcels in self.lanes.items() if not which(lane)}
