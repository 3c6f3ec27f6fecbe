"""What is believed of the links between the nodes that instances run on: from probes and transfers, told and shown."""

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from cluster.topology.link_estimate import LinkState
from cluster.topology.link_model import LinkModel, TransferSample
from cluster.topology.link_table import LinkTable
from cluster.topology.schedule import Pair
from cluster.topology.topology import Node, Topology
from router.links.rows import LinkRow

# Of one link no more is said in such a time: one that hovers about a threshold is not worth more lines.
_SAY_EVERY_S = 30.0

# A link is fitted once in a round, for all that was heard of it, in about half a millisecond; so many links in a round
# at most. An estimate goes by no more than the last transfers.
_MAX_LEARNED = 32
_MAX_HEARD = 16

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _LastProbe:
    at_s: float
    num_samples: int
    num_connections: int


class LinkBeliefs:
    """A `LinkTable` of the nodes that are there, beginning with what was measured before. Times are passed in."""

    def __init__(self, surveyed: Topology | None) -> None:
        self._surveyed = surveyed
        self._known = {node.name: node for node in surveyed.nodes} if surveyed else {}
        self._table = LinkTable()
        self._nodes: dict[str, Node] = {}
        self._transports: dict[Pair, str] = {}
        self._probes: dict[Pair, _LastProbe] = {}
        self.degraded: set[Pair] = set()
        self._heard: dict[tuple[Pair, str], deque[tuple[float, TransferSample]]] = {}  # not learned yet; when ended
        self._said: dict[Pair, tuple[LinkState, float]] = {}  # and when
        self.topology = self._table.topology(())
        self.is_changed = False

    @property
    def nodes(self) -> list[Node]:
        return list(self._nodes.values())

    def come(self, name: str, now_s: float) -> None:
        """An instance runs on that node."""
        if name in self._nodes:
            return
        self._nodes[name] = self._known.get(name) or Node(name=name)
        if self._surveyed is not None and name in self._known:
            for other in self._nodes.keys() & self._known.keys():
                for source, target in {(name, other), (other, name)}:
                    if model := self._surveyed.link(source, target):
                        self._table.surveyed(source, target, model, now_s)
        self.is_changed = True

    def gone(self, name: str) -> None:
        """Nothing is known of it any more but what was measured before everything."""
        self._nodes.pop(name, None)
        self._table.gone(name)
        self._heard = {key: it for key, it in self._heard.items() if name not in key[0]}
        self._said = {pair: it for pair, it in self._said.items() if name not in pair}
        self.degraded = {pair for pair in self.degraded if name not in pair}
        self._transports = {pair: it for pair, it in self._transports.items() if name not in pair}
        self._probes = {pair: it for pair, it in self._probes.items() if name not in pair}
        self.is_changed = True

    def probed(
        self, pair: Pair, transport: str, model: LinkModel, num_samples: int, num_connections: int, now_s: float
    ) -> LinkState:
        kind = self._kind(pair, transport)
        self._table.probed(*pair, kind, model, now_s)
        self._probes[pair] = _LastProbe(at_s=now_s, num_samples=num_samples, num_connections=num_connections)
        self._learned(pair, transport, kind, now_s)
        return self._table.state(*pair)

    def transferred(self, pair: Pair, transport: str, sample: TransferSample, ended_s: float) -> None:
        """To be followed by `learn`."""
        self._heard.setdefault((pair, transport), deque(maxlen=_MAX_HEARD)).append((ended_s, sample))

    def learn(self, now_s: float) -> None:
        """From the transfers of so many links as a round has time for: first those that have waited longest."""
        for pair, transport in list(islice(self._heard, _MAX_LEARNED)):
            heard = self._heard.pop((pair, transport))
            probe = self._probes.get(pair)  # one that came after a transfer knows better
            samples = [sample for ended_s, sample in heard if probe is None or ended_s > probe.at_s]
            if samples:
                kind = self._kind(pair, transport)
                self._table.transferred(*pair, kind, samples, now_s)
                self._learned(pair, transport, kind, now_s)

    def model(self, pair: Pair) -> LinkModel | None:
        """As it was when the topology was made last."""
        return self.topology.link(*pair) if self._nodes.keys() >= set(pair) else None

    def knows(self, pair: Pair) -> bool:
        return self._table.state(*pair) is not LinkState.UNKNOWN

    def state(self, pair: Pair) -> LinkState:
        return self._table.state(*pair)

    def stale(self, now_s: float, pairs: Iterable[Pair]) -> list[Pair]:
        """Those of these."""
        return self._table.to_probe(now_s, pairs)

    def rows(self, now_s: float, pairs: Iterable[Pair] | None = None) -> Iterator[LinkRow]:
        """Of those of these of which something is known, or of all."""
        for belief in self._table.beliefs(now_s, pairs):
            pair = belief.source, belief.target
            probe = self._probes.get(pair)
            yield LinkRow(
                pair=pair,
                state=belief.state.value,
                transport=self._transports.get(pair, ""),
                alpha_s=belief.model.alpha_s,
                beta_bytes_per_s=belief.model.beta_bytes_per_s,
                residual=belief.model.residual,
                num_samples=belief.num_samples + (probe.num_samples if probe else 0),
                age_s=belief.age_s,
                is_stale=belief.is_stale,
                num_connections=probe.num_connections if probe else 0,
            )

    def remake_topology(self) -> Topology:
        """Of the nodes that are there; costs as much as there are links, so it is not for every sample."""
        self.topology, self.is_changed = self._table.topology(self.nodes), False
        return self.topology

    def whole_topology(self) -> Topology:
        """As believed now, and as it was surveyed where no instance runs."""
        topology = self._table.topology(self.nodes)
        if self._surveyed is None:
            return topology
        nodes = [*self._surveyed.nodes, *(node for node in topology.nodes if node.name not in self._known)]
        links = {(a, b): link for a in self._known for b in self._known if (link := self._surveyed.link(a, b))}
        links |= {(a, b): link for a in self._nodes for b in self._nodes if (link := topology.link(a, b))}
        return Topology.of_links(nodes, links)

    def _kind(self, pair: Pair, transport: str) -> str:
        """Links that may be held to each other: not those within nodes to those between, nor one rack to another."""
        source, target = (self._nodes[name] for name in pair)
        where = "within" if source is target else f"{source.group}-{target.group}"
        return f"{transport} {where}"

    def _learned(self, pair: Pair, transport: str, kind: str, now_s: float) -> None:
        """Degraded and recovered are said once each."""
        if self._table.kind(*pair) == kind:
            self._transports[pair] = transport
        state = self._table.state(*pair)
        self.is_changed = True
        (self.degraded.add if self.state(pair) is LinkState.DEGRADED else self.degraded.discard)(pair)
        said, at_s = self._said.get(pair, (LinkState.GOOD, float("-inf")))
        if state not in (said, LinkState.UNKNOWN) and now_s - at_s >= _SAY_EVERY_S:
            self._said[pair] = state, now_s
            log.warning("link %s %s", _name(pair), "is degraded" if state is LinkState.DEGRADED else "has recovered")


def _name(pair: Pair) -> str:
    return f"{pair[0]} → {pair[1]}" if pair[0] != pair[1] else f"within {pair[0]}"
