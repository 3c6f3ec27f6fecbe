"""The decode step that follows a step, laid out while that one is computed: then only its tokens are missing."""

from collections.abc import Sequence as List
from operator import is_

import torch

from cluster.engine.scheduler_output import ScheduledSequence
from cluster.model.attention import Span
from cluster.model.batch import Batch


class NextStep:
    """Right if nobody comes, ends, stands still or loses blocks: `take` finds out. Blocks that are added meanwhile are
    in its tables by themselves.
    """

    def __init__(self, scheduled: List[ScheduledSequence]) -> None:
        """After a step in which all entries sample. `order`: which of them each row is, the longest first.

        Tokens of `batch` mean nothing yet.
        """
        starts = [entry.start + entry.num_tokens for entry in scheduled]
        sequences = [entry.sequence for entry in scheduled]
        self.order = sorted(range(len(starts)), key=lambda i: -starts[i])
        self._expected = [(sequence, start, 1, True) for sequence, start in zip(sequences, starts, strict=True)]
        self._tables = [sequence.block_table for sequence in sequences]
        self.batch = Batch(
            spans=tuple(Span(block_table=self._tables[i], start=starts[i], num_tokens=1) for i in self.order),
            token_ids=torch.zeros(len(starts), dtype=torch.long),
            positions=torch.tensor([starts[i] for i in self.order]),
            last_rows=torch.arange(len(starts)),
        )

    def take(self, scheduled: List[ScheduledSequence]) -> Batch | None:
        """With the tokens that there are by now; None if it is another step that has come."""
        if [(entry.sequence, entry.start, entry.num_tokens, entry.samples) for entry in scheduled] != self._expected:
            return None
        if not all(map(is_, [entry.sequence.block_table for entry in scheduled], self._tables)):
            return None
        self.batch.token_ids.numpy()[:] = [scheduled[i].sequence.output_token_ids[-1] for i in self.order]
        return self.batch

    def shares(self, scheduled: List[ScheduledSequence]) -> bool:
        """Whether one of its sequences is in this step: then there was work all the time."""
        return not {id(sequence) for sequence, *_ in self._expected}.isdisjoint(id(it.sequence) for it in scheduled)
