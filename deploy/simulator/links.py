"""Transfers over a network in simulated time: they share each link, and what nodes send and take in, max-min fairly."""

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field

from cluster.messages import Holder
from cluster.topology.sharing import max_min_rates
from cluster.topology.topology import Flow, Topology
from deploy.simulator.clock import Clock
from deploy.simulator.report import LinkUse

Ended = Callable[[str | None], None]
"""With why it failed, or None."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Transfer:
    source: Holder
    target: Holder
    flow: Flow
    num_bytes: float
    ended: Ended
    capacities: dict[Hashable, float] = field(default_factory=dict)
    left_bytes: float = 0.0
    rate: float = 0.0
    since_s: float = 0.0
    version: int = 0
    is_over: bool = False


class SimulatedLinks:
    """From one instance to another one transfer moves at a time, the others wait for it, as those of a link do."""

    def __init__(self, topology: Topology, clock: Clock) -> None:
        self._topology = topology
        self._clock = clock
        self._queues: dict[tuple[Holder, Holder], deque[_Transfer]] = {}
        self._passing: dict[Hashable, dict[int, _Transfer]] = {}  # those that move, by resource
        self._uses: dict[tuple[str, str], LinkUse] = {}
        self._num_moving: dict[tuple[str, str], int] = {}
        self._since_s: dict[tuple[str, str], float] = {}

    @property
    def is_idle(self) -> bool:
        return not self._queues

    @property
    def uses(self) -> list[LinkUse]:
        return list(self._uses.values())

    def rates(self) -> dict[tuple[str, str], float]:
        """bytes/s now, between nodes."""
        found: dict[tuple[str, str], float] = {}
        for queue in self._queues.values():
            if (first := queue[0]).rate:
                ends = first.flow.source, first.flow.target
                found[ends] = found.get(ends, 0.0) + first.rate
        return found

    def send(self, source: Holder, target: Holder, nodes: tuple[str, str], num_bytes: float, ended: Ended) -> None:
        """The latency first, then the bytes; within a node of which no link was measured they are there at once."""
        flow = Flow(source=nodes[0], target=nodes[1])
        transfer = _Transfer(source=source, target=target, flow=flow, num_bytes=num_bytes, ended=ended)
        queue = self._queues.setdefault((source, target), deque())
        queue.append(transfer)
        if len(queue) == 1:
            self._start(transfer)

    def cut(self, holder: Holder, reason: str) -> None:
        """Whatever comes from there or goes there has failed."""
        for ends in [ends for ends in self._queues if holder in ends]:
            for transfer in self._queues.pop(ends):
                if transfer.capacities:
                    self._leave(transfer)
                transfer.is_over = True
                self._use(transfer).num_failures += 1
                transfer.ended(reason)

    def _start(self, transfer: _Transfer) -> None:
        link = self._topology.link(transfer.flow.source, transfer.flow.target)
        if link is not None:
            self._clock.after(link.alpha_s, lambda: self._move(transfer))
        elif transfer.flow.source == transfer.flow.target:
            self._clock.after(0.0, lambda: self._end(transfer))
        else:
            self._clock.after(0.0, lambda: self._fail(transfer))

    def _move(self, transfer: _Transfer) -> None:
        if transfer.is_over:
            return
        transfer.left_bytes, transfer.since_s = transfer.num_bytes, self._clock.now_s
        transfer.capacities = self._topology.capacities(transfer.flow)
        for resource in transfer.capacities:
            self._passing.setdefault(resource, {})[id(transfer)] = transfer
        self._begin_use(transfer)
        self._share(transfer.capacities)

    def _share(self, resources: Iterable[Hashable]) -> None:
        """Anew among those who share these, or something with whoever does; others keep their rates."""
        found = self._together(resources)
        capacities = {resource: rate for it in found for resource, rate in it.capacities.items()}
        rates = max_min_rates([it.capacities for it in found], capacities) if len(found) > 1 else None
        for at, transfer in enumerate(found):
            self._change(transfer, rates[at] if rates else min(transfer.capacities.values()))

    def _together(self, resources: Iterable[Hashable]) -> list[_Transfer]:
        found = {key: it for resource in resources for key, it in self._passing.get(resource, {}).items()}
        waiting = list(found.values())
        while waiting:
            for resource in waiting.pop().capacities:
                for key, transfer in self._passing[resource].items():
                    if key not in found:
                        found[key] = transfer
                        waiting.append(transfer)
        return list(found.values())

    def _change(self, transfer: _Transfer, rate: float) -> None:
        if rate == transfer.rate:
            return
        now_s = self._clock.now_s
        transfer.left_bytes = max(0.0, transfer.left_bytes - transfer.rate * (now_s - transfer.since_s))
        transfer.rate, transfer.since_s = rate, now_s
        transfer.version += 1
        version = transfer.version
        if rate > 0.0:
            self._clock.after(transfer.left_bytes / rate, lambda: self._end_moving(transfer, version))

    def _end_moving(self, transfer: _Transfer, version: int) -> None:
        if transfer.is_over or transfer.version != version:
            return  # its rate has changed: its end was set anew
        self._leave(transfer)
        self._end(transfer)

    def _leave(self, transfer: _Transfer) -> None:
        for resource in transfer.capacities:
            del self._passing[resource][id(transfer)]
            if not self._passing[resource]:
                del self._passing[resource]
        self._end_use(transfer)
        self._share(transfer.capacities)

    def _end(self, transfer: _Transfer) -> None:
        if transfer.is_over:
            return
        use = self._use(transfer)
        use.num_transfers += 1
        use.num_bytes += int(transfer.num_bytes)
        self._next(transfer)
        transfer.ended(None)

    def _fail(self, transfer: _Transfer) -> None:
        if not transfer.is_over:
            self._use(transfer).num_failures += 1
            self._next(transfer)
            transfer.ended("there is no link")

    def _next(self, transfer: _Transfer) -> None:
        transfer.is_over = True
        ends = transfer.source, transfer.target
        queue = self._queues[ends]
        queue.popleft()
        if queue:
            self._start(queue[0])
        else:
            del self._queues[ends]

    # What is reported

    def _use(self, transfer: _Transfer) -> LinkUse:
        ends = transfer.flow.source, transfer.flow.target
        if (use := self._uses.get(ends)) is None:
            use = self._uses[ends] = LinkUse(source=ends[0], target=ends[1])
        return use

    def _begin_use(self, transfer: _Transfer) -> None:
        ends = transfer.flow.source, transfer.flow.target
        if not self._num_moving.get(ends):
            self._since_s[ends] = self._clock.now_s
        self._num_moving[ends] = self._num_moving.get(ends, 0) + 1

    def _end_use(self, transfer: _Transfer) -> None:
        ends = transfer.flow.source, transfer.flow.target
        self._num_moving[ends] -= 1
        if not self._num_moving[ends]:
            self._use(transfer).busy_s += self._clock.now_s - self._since_s[ends]
