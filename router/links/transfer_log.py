"""Transfers that instances tell of, late and in any order, replayed in the order in which they happened."""

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from cluster.topology.flights import Flights
from cluster.topology.link_model import LinkModel, TransferSample
from cluster.topology.topology import Flow, Topology

HOLD_S = 1.0
"""What ended so long ago has been told by everybody: snapshots come several times a second."""

MAX_HOLD_S = 10.0

_OF_LATE_S = 30.0

MAX_TRANSFERS = 4096

# Others that are promised KV from the same node, or by others to the same, may still wait for it: more count for so
# many. A link that gives a tenth is found out beside them.
_MAX_PROMISED = 3


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

    A transfer is held back for `hold_s`, or as long as the longest of the last half minute took, so that who was under
    way beside it has ended, and been told of, as well. One told of later is taken to have had the company that is there
    then. What is promised since before it ended, and still is, was company too. No more than `max_transfers` are held
    back; others are dropped.
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
        self._longest: deque[tuple[float, float]] = deque()  # when they ended, how long they took: ever shorter ones
        self._promised: dict[str, tuple[Flow, float]] = {}  # since when
        self._transfers: dict[int, Transfer] = {}
        self._events: list[tuple[float, bool, int]] = []  # (when, whether it begins, which): a heap
        self._flying: set[int] = set()
        self._late: list[Transfer] = []
        self._replayed_s = float("-inf")
        self._num_told = 0

    @property
    def busy_nodes(self) -> set[str]:
        """Those that have moved KV of late: what is held back. Probes do not count."""
        return {node for it in self._transfers.values() if not it.is_probe for node in (it.source, it.target)}

    def learned(self, topology: Topology) -> None:
        """The links are believed to be otherwise. It has every node of which anything was told, unless it is gone."""
        self._topology = topology
        self._flights.learned(topology)

    def gone(self, node: str) -> None:
        self._promised = {key: it for key, it in self._promised.items() if node not in (it[0].source, it[0].target)}
        self._late = [it for it in self._late if node not in (it.source, it.target)]
        for number in [number for number, it in self._transfers.items() if node in (it.source, it.target)]:
            del self._transfers[number]
            if number in self._flying:
                self._flying.remove(number)
                self._flights.end(number, self._replayed_s)

    def promised(self, key: str, source: str, target: str, now_s: float) -> None:
        """KV of a request is to go there; what was promised to it before is not."""
        self._promised.pop(key, None)
        if source != target:
            self._promised[key] = Flow(source=source, target=target), now_s

    def settled(self, key: str) -> None:
        self._promised.pop(key, None)

    def tell(self, transfer: Transfer) -> None:
        if len(self._transfers) + len(self._late) >= self._max_transfers:
            return
        if transfer.ended_s <= self._replayed_s:
            self._late.append(transfer)
            return
        while self._longest and self._longest[-1][1] <= transfer.seconds:
            self._longest.pop()
        self._longest.append((transfer.ended_s, transfer.seconds))
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
        until_s = now_s - self._held_s(now_s)
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
                yield transfer, min(self._flights.end(number, at_s), self._share_beside_promised(transfer))
        self._replayed_s = max(self._replayed_s, until_s)

    def _held_s(self, now_s: float) -> float:
        while self._longest and self._longest[0][0] <= now_s - _OF_LATE_S:
            self._longest.popleft()
        longest_s = self._longest[0][1] if self._longest else 0.0
        return max(self._hold_s, min(longest_s, self._max_hold_s))

    def _share_beside_promised(self, transfer: Transfer) -> float:
        """Next to KV that takes longer than anything was held back for; of what is promised to a link, one is on it.

        Not to its own link: that may be this very transfer's promise.
        """
        out: dict[str, Flow] = {}
        into: dict[str, Flow] = {}
        for flow, since_s in self._promised.values():  # by their times
            if since_s >= transfer.ended_s:
                break
            if flow.source == transfer.source and flow.target != transfer.target and len(out) < _MAX_PROMISED:
                out[flow.target] = flow
            if flow.target == transfer.target and flow.source != transfer.source and len(into) < _MAX_PROMISED:
                into[flow.source] = flow
        company = [*out.values(), *into.values()]
        own = Flow(source=transfer.source, target=transfer.target)
        return self._topology.share(own, company) if company else 1.0


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
