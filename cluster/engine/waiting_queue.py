"""Who is admitted next: the highest priority, then those that ran before, then the earliest arrival."""

from heapq import heappop, heappush

from cluster.engine.sequence import Sequence, SequenceStatus

_Key = tuple[int, bool, float, int, str]


class WaitingQueue:
    """A heap; what is removed from its middle is forgotten at once and dropped when it comes up.

    A preempted sequence goes before others of its priority: its client is reading already, and what it computed may
    still be cached.
    """

    def __init__(self) -> None:
        self._heap: list[_Key] = []
        self._entries: dict[str, tuple[_Key, Sequence]] = {}
        self.num_tokens = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, sequence: Sequence) -> bool:
        entry = self._entries.get(sequence.request_id)
        return entry is not None and entry[1] is sequence

    def push(self, sequence: Sequence) -> None:
        is_new = sequence.status is not SequenceStatus.PREEMPTED
        key = (-sequence.priority, is_new, sequence.arrival_time_s, sequence.admission_number, sequence.request_id)
        self._entries[sequence.request_id] = key, sequence
        self.num_tokens += sequence.num_tokens
        heappush(self._heap, key)

    def peek(self) -> Sequence | None:
        """The next one, without taking it out."""
        while self._heap:
            key = self._heap[0]
            entry = self._entries.get(key[-1])
            if entry is not None and entry[0] == key:
                return entry[1]
            heappop(self._heap)
        return None

    def remove(self, sequence: Sequence) -> None:
        del self._entries[sequence.request_id]
        self.num_tokens -= sequence.num_tokens
