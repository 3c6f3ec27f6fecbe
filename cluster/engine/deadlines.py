"""Which sequences have run out of time."""

from collections.abc import Iterator
from heapq import heappop, heappush

from cluster.engine.sequence import Sequence


class Deadlines:
    """A heap of names: who asks checks that the sequence is still there under the same admission number."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, str]] = []

    def push(self, sequence: Sequence) -> None:
        if sequence.deadline_s is not None:
            heappush(self._heap, (sequence.deadline_s, sequence.admission_number, sequence.request_id))

    def pop_passed(self, now_s: float) -> Iterator[tuple[str, int]]:
        """(request_id, admission_number) of each that was due by `now_s`; it is forgotten here."""
        while self._heap and self._heap[0][0] <= now_s:
            _, admission_number, request_id = heappop(self._heap)
            yield request_id, admission_number
