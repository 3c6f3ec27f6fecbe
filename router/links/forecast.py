"""How long KV will take from one instance to another, next to what is promised to their links already."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import numpy as np

from cluster.messages import Holder
from cluster.topology.in_flight import Indices, InFlight
from cluster.topology.topology import Flow, Matrix, Topology
from cluster.topology.usual import fill_links
from router.policies import Forecast

INFINITE = float("inf")

_UNLIMITED = 1e18


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where an instance is. `token_bytes`: KV of a token on a rank. `unreachable`: to whom it failed to hand over."""

    node: str
    token_bytes: float
    unreachable: AbstractSet[Holder] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Promise:
    """`is_queued`: it is to be prefilled there, and has no token yet."""

    source: Holder
    flow: Flow
    is_queued: bool


class LiveForecast(Forecast):
    """Of the links as they are believed to be now. What is asked is worked out, and no more.

    Prompts that wait for each other at one instance do not send together: of these only the first counts.
    """

    def __init__(self) -> None:
        self._topology = filled(Topology((), np.empty((0, 0)), np.empty((0, 0))), ())
        self._sites: Mapping[Holder, Site] = {}
        self._promised: dict[str, _Promise] = {}
        self._rows: dict[Holder, int] = {}
        self._nodes: Indices = np.empty(0, np.intp)  # of each instance, by its row
        self._token_bytes: Matrix = np.empty(0)
        self._in_flight: InFlight | None = None
        self._index: dict[str, int] = {}  # of each node of the topology

    # What it goes by

    def learned(self, topology: Topology, broken: Iterable[tuple[str, str]], sites: Mapping[Holder, Site]) -> None:
        """`topology` has the nodes of all `sites`; `broken`: pairs of nodes between which nothing gets through."""
        self._topology = filled(topology, broken)
        self._index = {node.name: at for at, node in enumerate(topology.nodes)}
        self._sites = dict(sites)
        self._rows = {holder: row for row, holder in enumerate(self._sites)}
        self._nodes = np.array([topology.index(site.node) for site in self._sites.values()], np.intp)
        self._token_bytes = np.array([site.token_bytes for site in self._sites.values()])
        self._forget()

    def promised(
        self, request_id: str, source: Holder, target: Holder, num_tokens: int, *, is_queued: bool = False
    ) -> None:
        """So much KV is to go there; what was promised to this request before is not."""
        ends = self._sites.get(source), self._sites.get(target)
        if ends[0] is None or ends[1] is None:
            self.settled(request_id)
            return
        flow = Flow(source=ends[0].node, target=ends[1].node, num_bytes=num_tokens * ends[0].token_bytes)
        self._promised[request_id] = _Promise(source=source, flow=flow, is_queued=is_queued)
        self._forget()

    def computed(self, request_id: str) -> None:
        """It has been prefilled: what is not there yet is on its way, and the next one's turn comes."""
        if (promise := self._promised.get(request_id)) and promise.is_queued:
            self._promised[request_id] = replace(promise, is_queued=False)
            self._forget()

    def settled(self, request_id: str) -> None:
        """It is there, or will not be."""
        if self._promised.pop(request_id, None) is not None:
            self._forget()

    @property
    def flows(self) -> list[Flow]:
        """All that is promised, queued or not."""
        return [promise.flow for promise in self._promised.values()]

    def _under_way(self) -> Iterator[Flow]:
        sending: set[Holder] = set()
        for promise in self._promised.values():
            if not promise.is_queued or promise.source not in sending:
                yield promise.flow
            if promise.is_queued:
                sending.add(promise.source)

    # Forecast

    def transfer_s(self, source: Holder, target: Holder, num_tokens: int) -> float:
        return float(self.transfers_s([source], [target], np.full((1, 1), float(num_tokens)))[0, 0])

    def transfers_s(self, sources: Sequence[Holder], targets: Sequence[Holder], num_tokens: Matrix) -> Matrix:
        rows, columns = (np.array([self._rows.get(it, -1) for it in ends], np.intp) for ends in (sources, targets))
        times_s = self._predict(np.maximum(rows, 0), np.maximum(columns, 0), num_tokens)
        times_s[rows < 0, :] = INFINITE
        times_s[:, columns < 0] = INFINITE
        for at, source in enumerate(sources):
            if (site := self._sites.get(source)) and site.unreachable:
                times_s[at, [target in site.unreachable for target in targets]] = INFINITE
        if set(sources).isdisjoint(targets):
            return times_s
        at_target = {target: column for column, target in enumerate(targets)}
        for row, source in enumerate(sources):
            if (column := at_target.get(source)) is not None:
                times_s[row, column] = 0.0
        return times_s

    def _predict(self, rows: Indices, columns: Indices, num_tokens: Matrix) -> Matrix:
        if not self._rows:
            return np.full((len(rows), len(columns)), INFINITE)
        if self._in_flight is None:
            known = self._index
            flows = [flow for flow in self._under_way() if flow.source in known and flow.target in known]
            self._in_flight = self._topology.in_flight(flows)
        num_bytes = num_tokens * self._token_bytes[rows, None]
        sources, targets = self._nodes[rows], self._nodes[columns]
        if num_bytes.size > len(self._topology) ** 2 and (num_bytes == num_bytes[0, 0]).all():
            every = np.arange(len(self._topology))  # fewer nodes than instances: once for each
            between_s = self._topology.predict_among(every, every, num_bytes[0, 0], self._in_flight)
            return between_s[np.ix_(sources, targets)]
        return self._topology.predict_among(sources, targets, num_bytes, self._in_flight)

    def _forget(self) -> None:
        self._in_flight = None


def filled(topology: Topology, broken: Iterable[tuple[str, str]]) -> Topology:
    """The same with what is usual where nothing is known: medians of the links between nodes, or of those within them.

    Where nothing is known of any, all are taken for equally good. Nothing is left of a broken one.
    """
    alpha_s, beta = topology.alpha_s.copy(), topology.beta_bytes_per_s.copy()
    fill_links(alpha_s, beta)
    unknown = ~np.isfinite(beta)
    alpha_s[unknown], beta[unknown] = 0.0, _UNLIMITED
    for source, target in broken:
        beta[topology.index(source), topology.index(target)] = np.nan
    return Topology(topology.nodes, alpha_s, beta, topology.residual)
