"""Everything that is believed of a cluster's links, link by link, each compared with others of its kind."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from cluster.topology.link_estimate import EstimateConfig, LinkEstimate, LinkState
from cluster.topology.link_model import LinkModel, TransferSample
from cluster.topology.schedule import Pair
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
    """Estimates by (source, target) and kind, a name of the caller's: the transport, or that and both ends' groups.

    Of a pair that has several, the one that counts is that of the last transfer; once that is stale, of the last probe.
    Pure: times are passed in and never go back.
    """

    def __init__(self, config: EstimateConfig | None = None) -> None:
        self._config = config or EstimateConfig()
        self._estimates: dict[str, dict[Pair, LinkEstimate]] = {}  # by kind; "": not told yet
        self._current: dict[Pair, str] = {}
        self._usuals: dict[str, tuple[float, LinkModel | None]] = {}  # by kind: since when
        self._surveyed: dict[Pair, str] = {}  # of which kind

    def surveyed(self, source: str, target: str, model: LinkModel, now_s: float) -> LinkState:
        """As it was found before this table was made: what it is held to from now on, whatever others of its kind give.

        The first transfer or probe says of which kind it is. It may be long ago: a probe is due as soon as it is idle.
        """
        pair = source, target
        estimate = self._estimates.setdefault("", {})[pair] = LinkEstimate(self._config)
        self._current[pair] = ""
        self._surveyed[pair] = ""
        return estimate.surveyed(model, now_s)

    def probed(self, source: str, target: str, kind: str, model: LinkModel, now_s: float) -> LinkState:
        """Returns what is believed of this kind, whether it is what counts or not."""
        pair = source, target
        estimate = self._estimate(pair, kind)
        counting = self._estimates[self._current[pair]][pair]
        if counting.state is LinkState.UNKNOWN or counting.is_stale(now_s):
            self._current[pair] = kind
        return estimate.probed(model, now_s, self._usual(pair, kind, now_s))

    def transferred(
        self, source: str, target: str, kind: str, samples: Sequence[TransferSample], now_s: float
    ) -> LinkState:
        """Their `share`: what `Flights.end` says."""
        pair = source, target
        estimate = self._estimate(pair, kind)
        self._current[pair] = kind
        return estimate.transferred(samples, now_s, self._usual(pair, kind, now_s))

    def gone(self, node: str) -> None:
        """Nothing of it is known any more: who comes back under its name may be elsewhere."""
        for pair in [pair for pair in self._current if node in pair]:
            for estimates in self._estimates.values():
                estimates.pop(pair, None)
            del self._current[pair]
            self._surveyed.pop(pair, None)

    def kind(self, source: str, target: str) -> str:
        """Which counts; empty where that was not told yet."""
        return self._current.get((source, target), "")

    def state(self, source: str, target: str) -> LinkState:
        pair = source, target
        return self._estimates[self._current[pair]][pair].state if pair in self._current else LinkState.UNKNOWN

    def to_probe(self, now_s: float, pairs: Iterable[Pair] | None = None) -> list[Pair]:
        """Links, of these or of all, that have gone stale: degraded ones first, then those of which nothing was heard
        longest.
        """
        stale = [(pair, estimate) for pair, estimate in self._counting(pairs) if estimate.is_stale(now_s)]
        stale.sort(key=lambda each: (each[1].state is not LinkState.DEGRADED, -(each[1].age_s(now_s) or 0.0)))
        return [pair for pair, _ in stale]

    def beliefs(self, now_s: float, pairs: Iterable[Pair] | None = None) -> Iterator[LinkBelief]:
        """Of those of these of which something is known, or of all."""
        for source, target in sorted(self._current if pairs is None else self._current.keys() & set(pairs)):
            estimate = self._estimates[self._current[source, target]][source, target]
            age_s = estimate.age_s(now_s)
            if estimate.model is not None and age_s is not None:
                yield LinkBelief(
                    source=source,
                    target=target,
                    kind=self._current[source, target],
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
            for pair, estimate in self._counting()
            if estimate.model is not None and names.issuperset(pair)
        }
        return Topology.of_links(nodes, models)

    def _counting(self, pairs: Iterable[Pair] | None = None) -> Iterator[tuple[Pair, LinkEstimate]]:
        for pair in self._current if pairs is None else pairs:
            if (kind := self._current.get(pair)) is not None:
                yield pair, self._estimates[kind][pair]

    def _estimate(self, pair: Pair, kind: str) -> LinkEstimate:
        """What was surveyed is of the kind that is told of first. Another transport is another link."""
        estimates = self._estimates.setdefault(kind, {})
        if pair not in estimates:
            surveyed = self._estimates.get("", {}).pop(pair, None)
            estimates[pair] = surveyed or LinkEstimate(self._config)
            if surveyed:
                self._surveyed[pair] = kind
            if surveyed or pair not in self._current:
                self._current[pair] = kind
        return estimates[pair]

    def _usual(self, pair: Pair, kind: str, now_s: float) -> LinkModel | None:
        """What links of its kind give, worked out once a second; None where they are too few to say, or not asked."""
        if self._surveyed.get(pair) == kind:
            return None
        at_s, usual = self._usuals.get(kind, (float("-inf"), None))
        if now_s - at_s < _USUAL_FOR_S:
            return usual
        models = [it.model for it in self._estimates[kind].values() if it.model is not None]
        usual = None
        if len(models) >= _MIN_OF_A_KIND:
            usual = LinkModel(
                alpha_s=median(model.alpha_s for model in models),
                beta_bytes_per_s=median(model.beta_bytes_per_s for model in models),
            )
        self._usuals[kind] = now_s, usual
        return usual
