"""Handovers of a simulation, from their grant to their end, counted by why they were begun and how they ended."""

from collections import Counter
from dataclasses import dataclass

from deploy.simulator.clock import Clock
from deploy.simulator.report import HandoverSample
from router.ledger import Note, Step

_OUTCOMES = {Step.PASSED: "passed", Step.KEPT: "kept", Step.RECOVERING: "lost"}


@dataclass(frozen=True, slots=True)
class _Open:
    reason: str
    source: str
    target: str
    began_s: float


class Handovers:
    """`keeps_log`: each of them is kept, not only counted."""

    def __init__(self, clock: Clock, *, keeps_log: bool) -> None:
        self._clock = clock
        self._keeps_log = keeps_log
        self._open: dict[str, _Open] = {}
        self._counts: dict[str, Counter[str]] = {}
        self.log: list[HandoverSample] = []

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        return {reason: dict(counted) for reason, counted in self._counts.items()}

    def on_note(self, note: Note) -> None:
        if note.step is Step.GRANTED and note.holder is not None and note.peer is not None:
            ends = note.holder.instance, note.peer.instance
            self._open[note.request_id] = _Open(note.reason, *ends, self._clock.now_s)
        elif note.step is not Step.DISPATCHED and (found := self._open.pop(note.request_id, None)) is not None:
            self._end(note, found)

    def _end(self, note: Note, found: _Open) -> None:
        outcome = _OUTCOMES.get(note.step, "over")  # the request ended before it was there
        self._counts.setdefault(found.reason, Counter())[outcome] += 1
        if self._keeps_log:
            self.log.append(
                HandoverSample(
                    request=int(note.request_id),
                    reason=found.reason,
                    source=found.source,
                    target=found.target,
                    began_s=found.began_s,
                    ended_s=self._clock.now_s,
                    error="" if note.step is Step.PASSED else f"{outcome}: {note.reason}",
                )
            )
