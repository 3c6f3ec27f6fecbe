"""What is in flight, so that a transfer's time can be told apart from the time that it waited for others."""

from collections.abc import Hashable
from dataclasses import dataclass

from cluster.topology.topology import Flow, Topology


@dataclass(slots=True, kw_only=True)
class _Flight:
    flow: Flow
    begun_s: float
    alone: float  # bytes/s with nothing else under way
    rate: float
    moved: float = 0.0  # bytes, as predicted


class Flights:
    """Flows by a key of the caller's; between two changes, rates stay what they are. Pure: times are passed in."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._flights: dict[Hashable, _Flight] = {}
        self._now_s = 0.0

    def flows(self) -> list[Flow]:
        return [flight.flow for flight in self._flights.values()]

    def begin(self, key: Hashable, source: str, target: str, now_s: float, num_bytes: float | None = None) -> None:
        assert key not in self._flights
        flow = Flow(source=source, target=target, num_bytes=num_bytes)
        self._advance(now_s)
        alone = self._topology.rates([flow])[0]
        self._flights[key] = _Flight(flow=flow, begun_s=now_s, alone=alone, rate=alone)
        self._share()

    def end(self, key: Hashable, now_s: float) -> float:
        """What it had, on the average, of the rate that it would have had alone: 1 when it was alone all the time."""
        self._advance(now_s)
        flight = self._flights.pop(key)
        self._share()
        could = flight.alone * (now_s - flight.begun_s)
        return min(1.0, flight.moved / could) if 0.0 < could < float("inf") else 1.0

    def learned(self, topology: Topology) -> None:
        """The links are believed to be otherwise; counts for what begins from now on."""
        self._topology = topology

    def _advance(self, now_s: float) -> None:
        for flight in self._flights.values():
            flight.moved += flight.rate * (now_s - self._now_s)
        self._now_s = now_s

    def _share(self) -> None:
        rates = self._topology.rates(self.flows())
        for flight, rate in zip(self._flights.values(), rates, strict=True):
            flight.rate = rate
