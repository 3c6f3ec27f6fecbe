"""What a handover costs its client: the longest gap between tokens around it, less the gap that its stream is used to.

Most of a handover's time the source decodes on, so the gap is looked for from the grant until some tokens
after the pass. Prefilled requests have no gap to compare with; `baton:second_token_seconds` is about them.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from router.ledger import Note, Step

# Gaps of a stream that are remembered, those needed for a median, and the tokens after a pass that belong to it.
_NUM_GAPS = 64
_MIN_GAPS = 8
_NUM_TOKENS_AFTER = 4


@dataclass(slots=True, kw_only=True, eq=False)
class _Stream:
    """`num_left` None: the baton has not been passed yet. `reason` empty: no handover is under way."""

    last_s: float
    gaps_s: deque[float] = field(default_factory=lambda: deque(maxlen=_NUM_GAPS))
    reason: str = ""
    longest_s: float = 0.0
    num_left: int | None = None


class HandoverGaps:
    """`observe` is given the reason of the handover and the added gap, once for each that was passed."""

    def __init__(self, observe: Callable[[str, float], None]) -> None:
        self._observe = observe
        self._streams: dict[str, _Stream] = {}

    def on_tokens(self, request_id: str, now_s: float) -> None:
        stream = self._streams.get(request_id)
        if stream is None:
            self._streams[request_id] = _Stream(last_s=now_s)
            return
        gap_s, stream.last_s = now_s - stream.last_s, now_s
        stream.gaps_s.append(gap_s)
        if stream.reason:
            stream.longest_s = max(stream.longest_s, gap_s)
            if stream.num_left is not None:
                stream.num_left -= 1
                if stream.num_left == 0:
                    self._close(stream)

    def on_note(self, note: Note) -> None:
        stream = self._streams.get(note.request_id)
        if note.step in (Step.FINISHED, Step.FAILED, Step.RECOVERING):
            if stream is not None and stream.num_left is not None:
                self._close(stream)
            self._streams.pop(note.request_id, None)
        elif stream is None:
            return
        elif note.step is Step.GRANTED and note.reason != "prefill":
            stream.reason, stream.longest_s, stream.num_left = note.reason, 0.0, None
        elif note.step is Step.PASSED and stream.reason:
            stream.num_left = _NUM_TOKENS_AFTER
        elif note.step is Step.KEPT:
            stream.reason = ""

    def _close(self, stream: _Stream) -> None:
        if len(stream.gaps_s) >= _MIN_GAPS:
            self._observe(stream.reason, max(0.0, stream.longest_s - median(stream.gaps_s)))
        stream.reason, stream.num_left = "", None
