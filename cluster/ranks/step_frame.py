"""A step as rank 0 tells it to the others: a batch as 32-bit integers, little endian.

num_spans, num_tokens, num_samples
start, num_tokens, num_known, num_new    of each span
block ids                                of each span: those that are new in its table
token_ids, positions, last_rows

`num_known`: so many of its table's ids came with the last step, for the span of the same number. Tables are long, and
grow by a block now and then.
"""

from collections.abc import Sequence as List
from itertools import accumulate, chain

import numpy as np
import torch

from cluster.model.attention import Span
from cluster.model.batch import Batch

_INT = np.dtype("<i4")
_Row = tuple[List[int], int]


class StepEncoder:
    """A table that is the same list as before has only been appended to: that is how the engine treats them."""

    def __init__(self) -> None:
        self._told: list[_Row] = []  # of each span of the last step: its table, and how long that was

    def encode(self, batch: Batch) -> bytes:
        known = [self._num_known(index, span.block_table) for index, span in enumerate(batch.spans)]
        self._told = [(span.block_table, len(span.block_table)) for span in batch.spans]
        head = [len(batch.spans), len(batch.token_ids), len(batch.last_rows)]
        spans = chain.from_iterable(
            (span.start, span.num_tokens, count, len(span.block_table) - count)
            for span, count in zip(batch.spans, known, strict=True)
        )
        new = chain.from_iterable(span.block_table[count:] for span, count in zip(batch.spans, known, strict=True))
        lists = np.fromiter(chain(head, spans, new), _INT)
        tensors = (batch.token_ids, batch.positions, batch.last_rows)
        return lists.tobytes() + b"".join(tensor.numpy().astype(_INT).tobytes() for tensor in tensors)

    def _num_known(self, index: int, table: List[int]) -> int:
        told, count = self._told[index] if index < len(self._told) else ([], 0)
        return count if told is table and count <= len(table) else 0


class StepDecoder:
    """Of all frames in order. Its tables are the same lists from step to step where rank 0's are."""

    def __init__(self) -> None:
        self.tables: list[list[int]] = []

    def decode(self, frame: bytes) -> Batch:
        values = np.frombuffer(frame, _INT)
        num_spans, num_tokens, num_samples = values[:3].tolist()
        ids_start = 3 + 4 * num_spans
        spans = values[3:ids_start].reshape(-1, 4).tolist()
        bounds = list(accumulate((num_new for *_, num_new in spans), initial=ids_start))
        token_ids, positions, last_rows = (
            torch.from_numpy(part.astype(np.int64))
            for part in np.split(values[bounds[-1] :], (num_tokens, 2 * num_tokens))
        )
        assert len(last_rows) == num_samples
        self.tables = [
            self._grow(index, num_known, values[first : first + num_new].tolist())
            for index, ((_, _, num_known, num_new), first) in enumerate(zip(spans, bounds, strict=False))
        ]
        return Batch(
            spans=tuple(
                Span(block_table=table, start=start, num_tokens=count)
                for (start, count, _, _), table in zip(spans, self.tables, strict=True)
            ),
            token_ids=token_ids,
            positions=positions,
            last_rows=last_rows,
        )

    def _grow(self, index: int, num_known: int, new: list[int]) -> list[int]:
        if not num_known:
            return new
        table = self.tables[index]
        assert len(table) == num_known, "a frame is missing"
        table += new
        return table
