"""Everything that is believed of a cluster's links, link by link, each compared with others of its kind."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from cluster.topology.link_estimate import EstimateConfig, LinkEstimate, LinkState
from cluster.topology.link_model import LinkModel, TransferSample
from cluster.topology.topology import Node, Topology

_MIN_OF_A_KIND = 4
_USUAL_FOR_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkBelief:
    """One row of what `baton probe` and `baton status` show. `age_s`: since the last transfer or probe."""

    source: str
    target: str
    kind: str
    model: LinkModel
    state: LinkState
    num_samples: int
    age_s: float
    is_stale: bool


class LinkTable:
    """Estimates by (source, target). A kind is a name of the caller's: the transport, or that and both ends' groups.

    Pure: times are passed in and never go back.
    """

    def __init__(self, config: EstimateConfig | None = None) -> None:
        self._config = config or EstimateConfig()
        self._estimates: dict[tuple[str, str], LinkEstimate] = {}
        self._kinds: dict[tuple[str, str], str | None] = {}  # None: not told yet
        self._usuals: dict[str, tuple[float, LinkModel]] = {}  # by kind: since when
        self._surveyed: set[tuple[str, str]] = set()

    def surveyed(self, source: str, target: str, model: LinkModel, now_s: float) -> LinkState:
        """As it was found before this table was made: what it is held to from now on, whatever others of its kind give.

        The first transfer or probe says of which kind it is.
        """
        estimate = self._estimate(source, target, None)
        self._surveyed.add((source, target))
        return estimate.probed(model, now_s)

    def probed(self, source: str, target: str, kind: str, model: LinkModel, now_s: float) -> LinkState:
        estimate = self._estimate(source, target, kind)
        return estimate.probed(model, now_s, self._usual((source, target), now_s))

    def transferred(self, source: str, target: str, kind: str, sample: TransferSample, now_s: float) -> LinkState:
        """`sample.share`: what `Flights.end` says."""
        estimate = self._estimate(source, target, kind)
        return estimate.transferred(sample, now_s, self._usual((source, target), now_s))

    def gone(self, node: str) -> None:
        """Nothing of it is known any more: who comes back under its name may be elsewhere."""
        for pair in [pair for pair in self._estimates if node in pair]:
            del self._estimates[pair], self._kinds[pair]
            self._surveyed.discard(pair)

    def state(self, source: str, target: str) -> LinkState:
        estimate = self._estimates.get((source, target))
        return estimate.state if estimate else LinkState.UNKNOWN

    def to_probe(self, now_s: float) -> list[tuple[str, str]]:
        """Links that have gone stale: degraded ones first, then those of which nothing was heard longest."""
        stale = [(pair, estimate) for pair, estimate in self._estimates.items() if estimate.is_stale(now_s)]
        stale.sort(key=lambda each: (each[1].state is not LinkState.DEGRADED, -(each[1].age_s(now_s) or 0.0)))
        return [pair for pair, _ in stale]

    def beliefs(self, now_s: float) -> Iterator[LinkBelief]:
        for (source, target), estimate in sorted(self._estimates.items(), key=lambda each: each[0]):
            age_s = estimate.age_s(now_s)
            if estimate.model is not None and age_s is not None:
                yield LinkBelief(
                    source=source,
                    target=target,
                    kind=self._kinds[source, target] or "",
                    model=estimate.model,
                    state=estimate.state,
                    num_samples=estimate.num_samples,
                    age_s=age_s,
                    is_stale=estimate.is_stale(now_s),
                )

    def topology(self, nodes: Sequence[Node]) -> Topology:
        """As believed now; links of which nothing is known are missing."""
        names = {node.name for node in nodes}
        models = {
            pair: estimate.model
            for pair, estimate in self._estimates.items()
            if estimate.model is not None and names.issuperset(pair)
        }
        return Topology.of_links(nodes, models)

    def _estimate(self, source: str, target: str, kind: str | None) -> LinkEstimate:
        """Another kind, for instance another transport, is another link: what was known of it counts no more."""
        pair = source, target
        known = self._kinds.get(pair)
        if pair not in self._estimates or known not in (None, kind):
            self._surveyed.discard(pair)
            self._estimates[pair] = LinkEstimate(self._config)
        self._kinds[pair] = kind
        return self._estimates[pair]

    def _usual(self, pair: tuple[str, str], now_s: float) -> LinkModel | None:
        """What links of its kind give, worked out once a second; None where they are too few to say, or not asked."""
        kind = self._kinds[pair]
        if kind is None or pair in self._surveyed:
            return None
        at_s, usual = self._usuals.get(kind, (0.0, None))
        if usual is not None and now_s - at_s < _USUAL_FOR_S:
            return usual
        models = [
            estimate.model
            for pair, estimate in self._estimates.items()
            if self._kinds[pair] == kind and estimate.model is not None
        ]
        if len(models) < _MIN_OF_A_KIND:
            return None
        usual = LinkModel(
            alpha_s=median(model.alpha_s for model in models),
            beta_bytes_per_s=median(model.beta_bytes_per_s for model in models),
        )
        self._usuals[kind] = now_s, usual
        return usual
