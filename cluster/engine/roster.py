"""Where every sequence of an engine is: in exactly one of four places."""

from cluster.engine.running_list import RunningList
from cluster.engine.sequence import Sequence, SequenceStatus
from cluster.engine.waiting_queue import WaitingQueue


class Roster:
    """The status says which place it is, but for the frozen: they keep the status that they go back with.

    `num_changes` grows with everything that happens here, so that others can tell whether anything did.
    """

    def __init__(self) -> None:
        self.sequences: dict[str, Sequence] = {}
        self.waiting = WaitingQueue()
        self.running = RunningList()
        self.frozen: dict[str, Sequence] = {}
        self.reserved: dict[str, Sequence] = {}
        self.num_changes = 0
        self._num_admitted = 0
        self._num_frozen_running = 0

    @property
    def num_running(self) -> int:
        """With the frozen that go back to running."""
        return len(self.running) + self._num_frozen_running

    @property
    def num_seated(self) -> int:
        """Whoever may have blocks."""
        return self.num_running + len(self.reserved)

    def enter(self, sequence: Sequence, status: SequenceStatus) -> None:
        self._num_admitted += 1
        sequence.admission_number = self._num_admitted
        sequence.status = status
        self.sequences[sequence.request_id] = sequence
        self._place(sequence)

    def move(self, sequence: Sequence, status: SequenceStatus) -> None:
        self._withdraw(sequence)
        sequence.status = status
        self._place(sequence)

    def leave(self, request_id: str, status: SequenceStatus) -> Sequence | None:
        sequence = self.sequences.pop(request_id, None)
        if sequence is not None:
            self._withdraw(sequence)
            sequence.status = status
        return sequence

    def freeze(self, sequence: Sequence) -> None:
        self._withdraw(sequence)
        self.frozen[sequence.request_id] = sequence
        self._num_frozen_running += sequence.status is SequenceStatus.RUNNING

    def thaw(self, request_id: str) -> None:
        if sequence := self.frozen.pop(request_id, None):
            self._num_frozen_running -= sequence.status is SequenceStatus.RUNNING
            self._place(sequence)

    def expired(self, now_s: float) -> list[Sequence]:
        """Those, waiting or running, whose deadline is not after `now_s`."""
        aside = self.frozen.keys() | self.reserved.keys()
        return [
            sequence
            for request_id, sequence in self.sequences.items()
            if sequence.deadline_s is not None and sequence.deadline_s <= now_s and request_id not in aside
        ]

    def check_integrity(self) -> None:
        for request_id, sequence in self.sequences.items():
            status = sequence.status
            is_frozen, is_reserved = request_id in self.frozen, request_id in self.reserved
            is_waiting, is_running = sequence in self.waiting, sequence in self.running
            assert is_frozen + is_reserved + is_waiting + is_running == 1, f"{request_id} is not in exactly one place"
            assert is_reserved == (status is SequenceStatus.WAITING_FOR_REMOTE_KVS), f"{request_id} is {status.name}"
            assert not is_running or status is SequenceStatus.RUNNING, f"{request_id} runs as {status.name}"
            assert not is_waiting or not sequence.block_table, f"{request_id} waits with blocks"
        num_running = sum(sequence.status is SequenceStatus.RUNNING for sequence in self.frozen.values())
        assert num_running == self._num_frozen_running, "the frozen that run are counted wrong"
        num_placed = len(self.running) + len(self.waiting) + len(self.frozen) + len(self.reserved)
        assert num_placed == len(self.sequences), "something is in a place that is not here"

    def _place(self, sequence: Sequence) -> None:
        self.num_changes += 1
        match sequence.status:
            case SequenceStatus.RUNNING:
                self.running.add(sequence)
            case SequenceStatus.WAITING_FOR_REMOTE_KVS:
                self.reserved[sequence.request_id] = sequence
            case _:
                self.waiting.push(sequence)

    def _withdraw(self, sequence: Sequence) -> None:
        self.num_changes += 1
        request_id = sequence.request_id
        if self.frozen.pop(request_id, None):
            self._num_frozen_running -= sequence.status is SequenceStatus.RUNNING
            return
        if self.reserved.pop(request_id, None):
            return
        if sequence.status is SequenceStatus.RUNNING:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
