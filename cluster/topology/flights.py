"""What is in flight, so that a transfer's time can be told apart from the time that it waited for others."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from cluster.topology.sharing import max_min_rates
from cluster.topology.topology import Flow, Topology

MAX_EXACT = 16
"""Of more flows that hang together, each resource is taken to be shared evenly: there are too many to be exact."""


@dataclass(slots=True, kw_only=True)
class _Flight:
    flow: Flow
    begun_s: float
    capacities: Mapping[Hashable, float]  # of the resources that it passes through
    alone: float  # bytes/s with nothing else under way
    rate: float = 0.0
    since_s: float = 0.0
    moved: float = 0.0  # bytes, as predicted, until then

    def change(self, rate: float, now_s: float) -> None:
        if self.rate:
            self.moved += self.rate * (now_s - self.since_s)
        self.rate, self.since_s = rate, now_s


class Flights:
    """Flows by a key of the caller's; between two changes, rates stay what they are. Pure: times are passed in.

    A flow that comes or goes changes the rates of those that it shares something with, directly or through others.
    """

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._flights: dict[Hashable, _Flight] = {}
        self._passing: dict[Hashable, dict[Hashable, None]] = {}  # flights, by resource
        self._capacities: dict[Hashable, float] = {}

    def flows(self) -> list[Flow]:
        return [flight.flow for flight in self._flights.values()]

    def begin(self, key: Hashable, source: str, target: str, now_s: float, num_bytes: float | None = None) -> None:
        assert key not in self._flights
        flow = Flow(source=source, target=target, num_bytes=num_bytes)
        capacities = self._topology.capacities(flow)
        alone = min(capacities.values(), default=float("inf"))
        self._flights[key] = _Flight(flow=flow, begun_s=now_s, since_s=now_s, capacities=capacities, alone=alone)
        for resource, capacity in capacities.items():
            self._passing.setdefault(resource, {})[key] = None
            self._capacities[resource] = capacity
        self._share(capacities, now_s)

    def end(self, key: Hashable, now_s: float) -> float:
        """What it had, on the average, of the rate that it would have had alone: 1 when it was alone all the time."""
        flight = self._flights.pop(key)
        flight.change(0.0, now_s)
        for resource in flight.capacities:
            del self._passing[resource][key]
            if not self._passing[resource]:
                del self._passing[resource], self._capacities[resource]
        self._share(flight.capacities, now_s)
        could = flight.alone * (now_s - flight.begun_s)
        return min(1.0, flight.moved / could) if 0.0 < could < float("inf") else 1.0

    def learned(self, topology: Topology) -> None:
        """The links are believed to be otherwise; counts for what begins from now on."""
        self._topology = topology

    def _share(self, resources: Iterable[Hashable], now_s: float) -> None:
        together = self._together(resources)
        flights = [self._flights[key] for key in together]
        if len(flights) <= MAX_EXACT:
            rates = max_min_rates([flight.capacities for flight in flights], self._capacities)
        else:
            rates = [self._even_rate(flight) for flight in flights]
        for flight, rate in zip(flights, rates, strict=True):
            flight.change(rate, now_s)

    def _together(self, resources: Iterable[Hashable]) -> dict[Hashable, None]:
        """Who shares these resources, or something with them; only those who share these when there are too many."""
        sharing = {key: None for resource in resources for key in self._passing.get(resource, ())}
        found = dict(sharing)
        waiting = list(sharing)
        while waiting:
            for resource in self._flights[waiting.pop()].capacities:
                for key in self._passing[resource]:
                    if key not in found:
                        found[key] = None
                        waiting.append(key)
            if len(found) > MAX_EXACT:
                return sharing if len(sharing) > MAX_EXACT else found
        return found

    def _even_rate(self, flight: _Flight) -> float:
        rates = (self._capacities[it] / len(self._passing[it]) for it in flight.capacities)
        return min(rates, default=float("inf"))
