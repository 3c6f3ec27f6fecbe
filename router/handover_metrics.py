"""Metrics of what moves: handovers by reason and outcome, the gaps they add, and recoveries by cause.

The bytes that they move are those of the links, which carry nothing else: `baton:link_num_bytes`.
"""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Histogram

from router.handover_gaps import HandoverGaps
from router.ledger import Note, Step
from router.observer import RouterObserver

ADDED_GAP_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

_OUTCOMES = {Step.PASSED: "passed", Step.KEPT: "kept", Step.RECOVERING: "lost"} | dict.fromkeys(
    (Step.FINISHED, Step.FAILED), "ended"
)
_CAUSES = (("silent", "silent"), ("taken out", "taken out"), ("passed", "lost while passing"))


class HandoverMetrics(RouterObserver):
    def __init__(self, registry: CollectorRegistry, model: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._model = model
        self._clock = clock
        self._granted: dict[str, str] = {}
        self._gaps = HandoverGaps(self._observe_gap)
        self._handovers = Counter(
            "baton:handovers",
            "Handovers that ended, by their reason: passed; kept where it was; or the request ended or was lost first",
            ("model_name", "reason", "outcome"),
            registry=registry,
        )
        self._added_gap_s = Histogram(
            "baton:handover_added_gap_seconds",
            "Longest gap between tokens around a handover, less the stream's median gap",
            ("model_name", "reason"),
            registry=registry,
            buckets=ADDED_GAP_BUCKETS_S,
        )
        self._recoveries = Counter(
            "baton:recoveries",
            "Requests dispatched again because whoever held them was lost",
            ("model_name", "cause"),
            registry=registry,
        )

    def on_tokens(self, request_id: str, num_tokens: int) -> None:
        if num_tokens:
            self._gaps.on_tokens(request_id, self._clock())

    def on_note(self, note: Note) -> None:
        self._gaps.on_note(note)
        if note.step is Step.GRANTED:
            self._granted[note.request_id] = note.reason
        elif note.step in _OUTCOMES and (reason := self._granted.pop(note.request_id, None)):
            self._handovers.labels(self._model, reason, _OUTCOMES[note.step]).inc()
        if note.step is Step.RECOVERING:
            self._recoveries.labels(self._model, cause_of(note.reason)).inc()

    def _observe_gap(self, reason: str, added_gap_s: float) -> None:
        self._added_gap_s.labels(self._model, reason).observe(added_gap_s)


def cause_of(reason: str) -> str:
    """One of few words for the ledger's sentence."""
    return next((cause for word, cause in _CAUSES if word in reason), "gone")
