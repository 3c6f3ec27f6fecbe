"""Transfers that instances tell of, late and in any order, replayed in the order in which they happened."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace

from cluster.topology.flights import Flights
from cluster.topology.link_model import LinkModel, TransferSample
from cluster.topology.topology import Flow, Topology

HOLD_S = 1.0
"""What ended so long ago has been told by everybody: snapshots come several times a second."""

MAX_HOLD_S = 5.0
_FORGETS = 0.95

MAX_TRANSFERS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Between two nodes. `is_probe`: it was company to others, its own link has learned from it already."""

    source: str
    target: str
    transport: str
    num_bytes: int
    seconds: float
    ended_s: float
    is_probe: bool = False


class TransferLog:
    """Says what share of its link each transfer had, next to all that anybody had under way. Times are passed in.

    A transfer is held back for `hold_s`, or about as long as transfers take of late, so that who was under way beside
    it has ended, and been told of, as well. One told of later is taken to have had the company that is there then. No
    more than `max_transfers` are held back; others are dropped.
    """

    def __init__(
        self,
        topology: Topology,
        *,
        hold_s: float = HOLD_S,
        max_hold_s: float = MAX_HOLD_S,
        max_transfers: int = MAX_TRANSFERS,
    ) -> None:
        self._topology = topology
        self._flights = Flights(topology)
        self._hold_s, self._max_hold_s, self._max_transfers = hold_s, max_hold_s, max_transfers
        self._usual_s = 0.0
        self._transfers: dict[int, Transfer] = {}
        self._events: list[tuple[float, bool, int]] = []  # (when, whether it begins, which): a heap
        self._flying: set[int] = set()
        self._late: list[Transfer] = []
        self._replayed_s = float("-inf")
        self._num_told = 0
        self.num_dropped = 0

    @property
    def busy_nodes(self) -> set[str]:
        """Those that have moved KV of late: what is held back. Probes do not count."""
        return {node for it in self._transfers.values() if not it.is_probe for node in (it.source, it.target)}

    def learned(self, topology: Topology) -> None:
        """The links are believed to be otherwise. It has every node of which anything was told, unless it is gone."""
        self._topology = topology
        self._flights.learned(topology)

    def gone(self, node: str) -> None:
        self._late = [it for it in self._late if node not in (it.source, it.target)]
        for number in [number for number, it in self._transfers.items() if node in (it.source, it.target)]:
            del self._transfers[number]
            if number in self._flying:
                self._flying.remove(number)
                self._flights.end(number, self._replayed_s)

    def tell(self, transfer: Transfer) -> None:
        if len(self._transfers) + len(self._late) >= self._max_transfers:
            self.num_dropped += 1
            return
        if transfer.ended_s <= self._replayed_s:
            self._late.append(transfer)
            return
        self._usual_s = max(transfer.seconds, self._usual_s * _FORGETS)
        self._num_told += 1
        self._transfers[self._num_told] = transfer
        begun_s = max(self._replayed_s, transfer.ended_s - transfer.seconds)
        heapq.heappush(self._events, (begun_s, True, self._num_told))
        heapq.heappush(self._events, (transfer.ended_s, False, self._num_told))

    def advance(self, now_s: float) -> Iterator[tuple[Transfer, float]]:
        """Those that were held back for long enough, by their ends, each with its share."""
        late, self._late = self._late, []
        for told in late:
            flow = Flow(source=told.source, target=told.target)
            yield told, self._topology.share(flow, self._flights.flows())
        until_s = now_s - max(self._hold_s, min(self._usual_s, self._max_hold_s))
        while self._events and self._events[0][0] <= until_s:
            at_s, begins, number = heapq.heappop(self._events)
            transfer = self._transfers.get(number)
            if transfer is None:
                continue
            self._replayed_s = at_s
            if begins:
                self._flying.add(number)
                self._flights.begin(number, transfer.source, transfer.target, at_s)
            else:
                self._flying.remove(number)
                del self._transfers[number]
                yield transfer, self._flights.end(number, at_s)
        self._replayed_s = max(self._replayed_s, until_s)


def as_sample(transfer: Transfer, share: float, believed: LinkModel | None) -> TransferSample:
    """Company excuses a transfer that was slow, up to what its link is believed to give; it proves no link better.

    Two flows need not slow each other down: what bounds one alone may be its own end, not the way.
    """
    sample = TransferSample(num_bytes=transfer.num_bytes, seconds=transfer.seconds, share=share)
    if believed is None or share >= 1.0:
        return sample
    latency_s = min(believed.alpha_s, sample.seconds)
    shared_s = sample.seconds - latency_s
    least_s = believed.seconds(sample.num_bytes) - latency_s
    return replace(sample, share=1.0 if shared_s <= least_s else max(share, least_s / shared_s))
