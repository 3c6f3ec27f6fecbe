"""What a decode step reads, in memory that stays where it is: a CUDA graph runs again on the same addresses."""

from collections.abc import Sequence as List
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from cluster.model.attention import Span
from cluster.model.batch import Batch
from cluster.model.step_tensors import StepTensors

TOKEN_IDS, POSITIONS, CONTEXTS, SLOTS = range(4)
LARGEST_COPY_BYTES = 256 << 10
"""Of tables, where few blocks are new: beyond it, putting those in their places takes less time, by arithmetic."""


class DecodeInputs:
    """For up to `max_num_seqs` sequences of one token each, of up to `max_blocks` blocks.

    Tables are only copied where they have changed. A table that is the same list as before has only been appended to:
    that is how the engine treats them, and what spares comparing them.
    """

    def __init__(self, max_num_seqs: int, max_blocks: int, block_size: int, device: torch.device) -> None:
        self.block_size = block_size
        self.max_context = max_blocks * block_size
        is_cuda = device.type == "cuda"

        def both(*shape: int, dtype: torch.dtype = torch.int32) -> tuple[Tensor, Tensor]:
            host = torch.zeros(shape, dtype=dtype)
            return host.pin_memory() if is_cuda else host, torch.zeros(shape, dtype=dtype, device=device)

        self._host_numbers, self._numbers = both(4, max_num_seqs)
        self._host_tables, self._tables = both(max_num_seqs, max_blocks)
        self._host_grown, self._grown = both(2, max_num_seqs, dtype=torch.int64)  # places in tables, and block ids
        self._written_numbers, self._written_tables = self._host_numbers.numpy(), self._host_tables.numpy()
        self._rows = np.arange(max_num_seqs)
        self._chunk_starts = torch.arange(max_num_seqs + 1, dtype=torch.int32, device=device)
        self._known: list[List[int]] = [()] * max_num_seqs  # the table of each row
        self._num_known = [0] * max_num_seqs  # how much of it is copied
        self._laid_out: Batch | None = None
        self._copied = torch.cuda.Event() if is_cuda else None  # type: ignore[no-untyped-call]

    def lay_out(self, batch: Batch, num_padded: int) -> None:
        """What can be known of a batch before its tokens: on the host, while the device is at something else."""
        self._wait()
        count, numbers, positions = len(batch.spans), self._written_numbers, batch.positions.numpy()
        numbers[POSITIONS, :count] = positions
        numbers[CONTEXTS, :count] = positions + 1
        numbers[:SLOTS, count:num_padded] = 0
        numbers[SLOTS, count:num_padded] = -1
        self._places = self._rows[:count], positions // self.block_size
        self._offsets = positions % self.block_size
        self._laid_out = batch

    def fill(self, batch: Batch, num_padded: int) -> None:
        """Rows from the batch's length up to `num_padded` become padding: they read nothing and store nothing.

        Copies are put on the current stream, and not waited for. The device waits for this between two steps: so a
        batch may be laid out before, for the same `num_padded`.
        """
        if self._laid_out is not batch:
            self.lay_out(batch, num_padded)
        self._laid_out = None
        self._wait()
        self._take_tables(batch.spans)
        count, numbers = len(batch.spans), self._written_numbers
        numbers[TOKEN_IDS, :count] = batch.token_ids.numpy()
        numbers[SLOTS, :count] = self._written_tables[self._places] * self.block_size + self._offsets
        self._numbers.copy_(self._host_numbers, non_blocking=True)
        if self._copied is not None:
            self._copied.record()

    def _wait(self) -> None:
        """For the last copies, whose source is written to now."""
        if self._copied is not None:
            self._copied.synchronize()

    def token_ids(self, num_padded: int) -> Tensor:
        return self._numbers[TOKEN_IDS, :num_padded]

    def positions(self, num_padded: int) -> Tensor:
        return self._numbers[POSITIONS, :num_padded]

    def step(self, num_padded: int) -> StepTensors:
        """Views for attention; `max_context` is the most that any step can have."""
        return StepTensors(
            tables=self._tables[:num_padded],
            contexts=self._numbers[CONTEXTS, :num_padded],
            chunk_starts=self._chunk_starts[: num_padded + 1],
            slots=self._numbers[SLOTS, :num_padded],
            num_decodes=num_padded,
            max_chunk=1,
            max_context=self.max_context,
        )

    def _take_tables(self, spans: List[Span]) -> None:
        """One copy brings all rows between the first and the last that has changed: more bytes, but fewer calls.

        Where those are too many and few blocks are new, only these are brought, and put in their places.
        """
        known, num_known = self._known, self._num_known
        changed = [
            row
            for row, span in enumerate(spans)
            if span.block_table is not known[row] or len(span.block_table) != num_known[row]
        ]
        new: list[range] = []  # their places
        for row in changed:
            table = spans[row].block_table
            first, end = num_known[row] if table is known[row] else 0, len(table)
            self._written_tables[row, first:end] = table[first:end]
            place = row * self._tables.shape[1]
            new.append(range(place + first, place + end))
            known[row], num_known[row] = table, end
        if changed:
            self._copy_tables(slice(changed[0], changed[-1] + 1), new)

    def _copy_tables(self, rows: slice, new: List[range]) -> None:
        tables, count = self._tables[rows], sum(map(len, new))
        if count > self._grown.shape[1] or tables.nbytes <= LARGEST_COPY_BYTES:
            tables.copy_(self._host_tables[rows], non_blocking=True)
            return
        written = self._host_grown.numpy()[:, :count]
        written[0] = list(chain(*new))
        written[1] = self._written_tables.reshape(-1)[written[0]]
        self._grown.copy_(self._host_grown, non_blocking=True)
        places, block_ids = self._grown[:, :count]
        self._tables.view(-1).scatter_(0, places, block_ids.int())
