"""A step as rank 0 tells it to the others: a batch as 32-bit integers, little endian.

num_spans, num_tokens, num_samples
start, num_tokens, num_blocks    of each span
block ids                        of each span
token_ids, positions, last_rows
"""

from itertools import accumulate, chain

import numpy as np
import torch

from cluster.model.attention import Span
from cluster.model.batch import Batch

_INT = np.dtype("<i4")


def encode(batch: Batch) -> bytes:
    head = [len(batch.spans), len(batch.token_ids), len(batch.last_rows)]
    spans = chain.from_iterable((span.start, span.num_tokens, len(span.block_table)) for span in batch.spans)
    tables = chain.from_iterable(span.block_table for span in batch.spans)
    lists = np.fromiter(chain(head, spans, tables), _INT)
    tensors = (batch.token_ids, batch.positions, batch.last_rows)
    return lists.tobytes() + b"".join(tensor.numpy().astype(_INT).tobytes() for tensor in tensors)


def decode(frame: bytes) -> Batch:
    values = np.frombuffer(frame, _INT)
    num_spans, num_tokens, num_samples = values[:3].tolist()
    tables_start = 3 + 3 * num_spans
    spans = values[3:tables_start].reshape(-1, 3).tolist()
    bounds = list(accumulate((num_blocks for _, _, num_blocks in spans), initial=tables_start))
    token_ids, positions, last_rows = (
        torch.from_numpy(part.astype(np.int64)) for part in np.split(values[bounds[-1] :], (num_tokens, 2 * num_tokens))
    )
    assert len(last_rows) == num_samples
    return Batch(
        spans=tuple(
            Span(block_table=values[first:last].tolist(), start=start, num_tokens=count)
            for (start, count, _), first, last in zip(spans, bounds, bounds[1:], strict=False)
        ),
        token_ids=token_ids,
        positions=positions,
        last_rows=last_rows,
    )
