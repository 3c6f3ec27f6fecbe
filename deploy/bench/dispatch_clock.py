"""The time of a calculation, and transfers that share links in it."""

import heapq
from collections.abc import Callable
from itertools import count

from cluster.topology.topology import Flow, Topology

Act = Callable[[], None]


class Clock:
    """What is due happens in order of time; at one time, in the order in which it was set."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._due: list[tuple[float, int, Act]] = []
        self._numbers = count()

    def at(self, when_s: float, act: Act) -> None:
        heapq.heappush(self._due, (when_s, next(self._numbers), act))

    def after(self, delay_s: float, act: Act) -> None:
        self.at(self.now_s + delay_s, act)

    def run(self, is_over: Callable[[], bool]) -> None:
        while self._due and not is_over():
            self.now_s, _, act = heapq.heappop(self._due)
            act()


class SharedLinks:
    """Transfers over a topology, sharing max-min fairly; whenever one comes or goes, all rates are worked out anew."""

    def __init__(self, topology: Topology, clock: Clock) -> None:
        self._topology = topology
        self._clock = clock
        self._flows: dict[int, tuple[Flow, Act]] = {}
        self._left: dict[int, float] = {}
        self._rates: dict[int, float] = {}
        self._at_s = 0.0
        self._numbers = count()
        self._version = 0

    def send(self, source: str, target: str, num_bytes: float, on_arrival: Act) -> None:
        """The latency first, then the bytes; within a node that was not measured nothing has to travel."""
        link = self._topology.link(source, target)
        if link is None:
            assert source == target, f"no link from {source} to {target}"
            self._clock.after(0.0, on_arrival)
        else:
            flow = Flow(source=source, target=target)
            self._clock.after(link.alpha_s, lambda: self._begin(flow, num_bytes, on_arrival))

    def _begin(self, flow: Flow, num_bytes: float, on_arrival: Act) -> None:
        self._advance()
        number = next(self._numbers)
        self._flows[number], self._left[number] = (flow, on_arrival), num_bytes
        self._share()

    def _advance(self) -> None:
        for number, rate in self._rates.items():
            self._left[number] -= rate * (self._clock.now_s - self._at_s)
        self._at_s = self._clock.now_s

    def _share(self) -> None:
        rates = self._topology.rates([flow for flow, _ in self._flows.values()])
        self._rates = dict(zip(self._flows, rates, strict=True))
        self._version += 1
        if self._flows:
            ends_s = {number: max(0.0, self._left[number]) / rate for number, rate in self._rates.items()}
            first = min(ends_s, key=lambda number: ends_s[number])
            version = self._version
            self._clock.after(ends_s[first], lambda: self._end(first, version))

    def _end(self, number: int, version: int) -> None:
        if version != self._version:
            return  # somebody came or went meanwhile: its end was set anew
        self._advance()
        del self._left[number], self._rates[number]
        _, on_arrival = self._flows.pop(number)
        self._share()
        on_arrival()
