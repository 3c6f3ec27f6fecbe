"""CUDA graphs of decode steps: a step of a few hundred kernels is one launch, for batches padded to a few sizes."""

from bisect import bisect_left
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cluster.model.batch import Batch
from cluster.model.decode_inputs import DecodeInputs

Compute = Callable[[DecodeInputs, int], Tensor | None]
"""Logits for so many rows, which are padded; None on another rank than 0."""


def padded_sizes(max_num_seqs: int) -> tuple[int, ...]:
    """1, 2, 4, then every 8, from 64 on every 16: few graphs, and little computed for nobody."""
    sizes = [1, 2, 4, *range(8, 64, 8), *range(64, max_num_seqs, 16)]
    return (*(size for size in sizes if size < max_num_seqs), max_num_seqs)


class DecodeGraphs:
    """One graph a padded size, recorded when it is made, the largest first: the others find their memory there."""

    def __init__(self, inputs: DecodeInputs, compute: Compute, max_num_seqs: int) -> None:
        self.inputs = inputs
        self.sizes = padded_sizes(max_num_seqs)
        self._compute = compute
        self._logits: Tensor | None = None  # of the largest; smaller ones are copied to where it begins
        self._pool: Any = None
        self._stream: Any = None
        self._compute_into_place(self.sizes[-1])
        self._graphs = {size: self._record(size) for size in reversed(self.sizes)}

    def takes(self, batch: Batch) -> bool:
        """Whether all decode one token, and are not too many. Every one of them samples."""
        return len(batch.spans) == len(batch.token_ids) == len(batch.last_rows) <= self.sizes[-1]

    def lay_out(self, batch: Batch) -> None:
        """Of a batch that `run` is likely to be given next: what can be done before its tokens are there."""
        self.inputs.lay_out(batch, self._size(batch))

    def run(self, batch: Batch) -> Tensor | None:
        """Logits of the batch's rows, in memory that the next run overwrites."""
        size = self._size(batch)
        self.inputs.fill(batch, size)
        self._graphs[size]()
        return self._logits

    def _size(self, batch: Batch) -> int:
        return self.sizes[bisect_left(self.sizes, len(batch.spans))]

    def _record(self, size: int) -> Callable[[], object]:
        """Computes it twice before: kernels are compiled and libraries make up their minds outside of the graph."""
        device = self.inputs.token_ids(size).device
        if device.type != "cuda":  # computing again is what a graph would do
            return partial(self._compute_into_place, size)
        for _ in range(2):
            self._compute_into_place(size)
        torch.cuda.synchronize(device)
        # Torch's own stream for this is one for the process, on the device that recorded first.
        self._stream = self._stream or torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            self._compute_into_place(size)
        self._pool = self._pool or graph.pool()
        return graph.replay

    def _compute_into_place(self, size: int) -> None:
        logits = self._compute(self.inputs, size)
        if self._logits is None:
            self._logits = torch.empty_like(logits) if logits is not None else None
        if self._logits is not None and logits is not None:
            self._logits[:size].copy_(logits)
