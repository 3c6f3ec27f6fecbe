"""The sequences that take part in every step, the most important first."""

from bisect import bisect_left, insort

from cluster.engine.sequence import Sequence


def _rank(sequence: Sequence) -> tuple[int, float, int]:
    return -sequence.priority, sequence.arrival_time_s, sequence.admission_number


class RunningList:
    """Sorted by descending priority, then arrival.

    Room is given out from the front and taken back from the end, so nobody loses blocks to a lesser sequence.
    """

    def __init__(self) -> None:
        self._sequences: list[Sequence] = []

    def __len__(self) -> int:
        return len(self._sequences)

    def __getitem__(self, index: int) -> Sequence:
        return self._sequences[index]

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence in self._sequences

    @property
    def num_uncomputed_tokens(self) -> int:
        return sum(sequence.num_tokens - sequence.num_computed_tokens for sequence in self._sequences)

    def add(self, sequence: Sequence) -> None:
        insort(self._sequences, sequence, key=_rank)

    def remove(self, sequence: Sequence) -> None:
        index = bisect_left(self._sequences, _rank(sequence), key=_rank)
        assert self._sequences[index] is sequence, f"{sequence.request_id} is not running"
        del self._sequences[index]
