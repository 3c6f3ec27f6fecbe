"""Whom to probe when: each node in at most one probe at a time, pairs that have none in common at once."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cluster.topology.schedule import Pair

# Of a failed probe's pair, for how long nothing is tried; and for how long at most, when it goes on failing.
_RETRY_S = 2.0
_MAX_RETRY_S = 10.0

_STALE, _DEGRADED = "stale", "degraded"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeConfig:
    """`budget_s`: what a probe may take. One without an answer so much later has failed.

    `rest`: a node that was probed only because a link of its was stale rests so many times as long as that took;
    `degraded_rest`: one that was probed because a link was degraded, and is no better, from more such probes.
    `patience_s`: a degraded link is probed though its nodes are not idle when it has waited for so long.
    `max_interval_s`: between probes of a degraded link that find it no better, the time doubles up to this.
    `num_failures`: so many that found no way, none between them that did, and it is held to be broken.
    """

    budget_s: float = 0.5
    answer_timeout_s: float = 10.0
    rest: float = 19.0
    degraded_rest: float = 4.0
    patience_s: float = 10.0
    max_interval_s: float = 30.0
    num_failures: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """Pairs of nodes, by why they are to be probed; those first that come first.

    `asked`: an operator wants it; `unknown`: nothing is known for sure; `degraded`: it may have recovered; `stale`:
    unused for long.
    """

    asked: Iterable[Pair] = ()
    unknown: Iterable[Pair] = ()
    degraded: Iterable[Pair] = ()
    stale: Iterable[Pair] = ()


@dataclass(slots=True, kw_only=True)
class _Record:
    """Of a pair: how often in a row it failed, found no way, or was no better, and until when it is left alone."""

    num_failures: int = 0
    num_without_way: int = 0
    num_in_vain: int = 0
    not_before_s: float = float("-inf")
    probed_s: float = float("-inf")
    waiting_since_s: float | None = None
    error: str = ""


class ProbePlan:
    """Pure: times are passed in."""

    def __init__(self, config: ProbeConfig) -> None:
        self._config = config
        self._running: dict[Pair, float] = {}  # since when
        self._records: dict[Pair, _Record] = {}
        self._resting: dict[str, dict[str, float]] = {_STALE: {}, _DEGRADED: {}}  # which node until when, by why
        self._whys: dict[Pair, str] = {}  # of those that run, where a rest follows

    @property
    def running(self) -> frozenset[Pair]:
        return frozenset(self._running)

    def error(self, pair: Pair) -> str:
        """Why the last probe failed; empty when it did not."""
        record = self._records.get(pair)
        return record.error if record else ""

    def is_broken(self, pair: Pair) -> bool:
        record = self._records.get(pair)
        return record is not None and record.num_without_way >= self._config.num_failures

    def broken(self) -> list[Pair]:
        return [pair for pair in self._records if self.is_broken(pair)]

    def begin(self, wishes: Wishes, busy: set[str], now_s: float) -> Iterator[Pair]:
        """Those whose turn it is; they are running from now on. `busy`: nodes that move KV."""
        taken = {node for pair in self._running for node in pair}
        for pair, why in self._due(wishes, busy, now_s):
            if taken.isdisjoint(pair) and pair not in self._running:
                taken.update(pair)
                self._running[pair] = now_s
                if why:
                    self._whys[pair] = why
                yield pair

    def _due(self, wishes: Wishes, busy: set[str], now_s: float) -> Iterator[tuple[Pair, str]]:
        for pair in wishes.asked:
            yield pair, ""
        for pair in wishes.unknown:
            if self._may(pair, now_s):
                yield pair, ""
        for pair in sorted(wishes.degraded, key=self._probed_s):
            may = self._may(pair, now_s) and (busy.isdisjoint(pair) or self._has_waited(pair, now_s))
            if may and self._is_rested(pair, _DEGRADED, now_s):
                yield pair, _DEGRADED
        for pair in wishes.stale:
            if self._is_rested(pair, _STALE, now_s) and busy.isdisjoint(pair) and self._may(pair, now_s):
                yield pair, _STALE

    def _is_rested(self, pair: Pair, why: str, now_s: float) -> bool:
        return all(self._resting[why].get(node, now_s) <= now_s for node in pair)

    def _probed_s(self, pair: Pair) -> float:
        record = self._records.get(pair)
        return record.probed_s if record else float("-inf")

    def _may(self, pair: Pair, now_s: float) -> bool:
        record = self._records.get(pair)
        return record is None or record.not_before_s <= now_s

    def _has_waited(self, pair: Pair, now_s: float) -> bool:
        record = self._records.setdefault(pair, _Record())
        if record.waiting_since_s is None:
            record.waiting_since_s = now_s
        return now_s - record.waiting_since_s >= self._config.patience_s

    def end(
        self, pair: Pair, now_s: float, *, error: str = "", has_way: bool | None = True, is_degraded: bool = False
    ) -> None:
        """It has been probed. `error` without `has_way`: there was none; with it, who was to do it did not come to it;
        None: that is not known. `is_degraded`: the link is no better.
        """
        begun_s = self._running.pop(pair, now_s)
        record = self._records.setdefault(pair, _Record())
        record.error, record.waiting_since_s, record.probed_s = error, None, now_s
        why = self._whys.pop(pair, "")
        if why == _DEGRADED and not error and not is_degraded:
            self._hurry(pair)
        elif why:
            self._rest(pair, why, now_s, now_s - begun_s)
        if error:
            record.num_failures += 1
            if has_way is not None:
                record.num_without_way = 0 if has_way else record.num_without_way + 1
            record.not_before_s = now_s + min(_MAX_RETRY_S, _RETRY_S * 2.0 ** (record.num_failures - 1))
        else:
            record.num_failures = record.num_without_way = 0
            record.num_in_vain = record.num_in_vain + 1 if is_degraded else 0
            pause_s = min(self._config.max_interval_s, 10.0 * 2.0 ** (record.num_in_vain - 1)) if is_degraded else 0.0
            record.not_before_s = now_s + pause_s

    def _rest(self, pair: Pair, why: str, now_s: float, took_s: float) -> None:
        for_s = self._config.rest * took_s
        if why == _DEGRADED:  # one that was not answered keeps the others waiting no longer
            for_s = min(self._config.degraded_rest * took_s, _MAX_RETRY_S)
        self._resting[why].update(dict.fromkeys(pair, now_s + for_s))

    def _hurry(self, pair: Pair) -> None:
        """It has recovered: so may have, at the same time, all others of its nodes."""
        for node in pair:
            self._resting[_DEGRADED].pop(node, None)
        for other, record in self._records.items():
            if record.num_in_vain and not set(pair).isdisjoint(other):
                record.not_before_s = float("-inf")

    def withdraw(self, pair: Pair) -> None:
        """Who was to do it is gone: that says nothing of the way."""
        self._running.pop(pair, None)
        self._whys.pop(pair, None)

    def works(self, pair: Pair) -> None:
        """KV got through."""
        if (record := self._records.get(pair)) and record.num_failures:
            record.num_failures = record.num_without_way = 0
            record.error, record.not_before_s = "", float("-inf")

    def gone(self, node: str) -> None:
        for pair in [pair for pair in (*self._running, *self._records) if node in pair]:
            self._running.pop(pair, None)
            self._records.pop(pair, None)
            self._whys.pop(pair, None)
        for resting in self._resting.values():
            resting.pop(node, None)
