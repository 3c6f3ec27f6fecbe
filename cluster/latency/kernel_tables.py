"""Kernels that were timed one by one on a GPU, and what lies between them. `data/kernels_*.json` names the sources.

Linear layers are read off between the sizes timed, in proportion to both widths. Attention of a prompt goes by its
squares; of decoding sequences by KV heads times sequences and the context of each: heads that read the same KV hardly
cost more than one, and a sequence of eight KV heads takes what eight of one take (within a few percent in the tables).
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.latency.bundled import read_json

Times = NDArray[np.float64]

TIMED_HEAD_DIM = 128
"""Of all attention that was timed; half as large a head counts as half of one."""


class KernelTables:
    """All in seconds; see `deploy/profiling/bundle.py` for how the tables were made."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._gemm, self._prompts = content["gemm"], content["context_attention"]
        self._decodes, self._all_reduce = content["generation_attention"], content["custom_allreduce"]
        self._linear = np.array(self._gemm["us"]) * 1e-6
        self.tokens: list[int] = self._gemm["tokens"]
        self.squares: list[float] = [length**2 for length in self._prompts["lengths"]]
        self.contexts: list[int] = self._decodes["contexts"]
        self._decode_rows = np.array(self._decodes["us"]) * 1e-6

    def linear_s(self, num_inputs: int, num_outputs: int) -> Times:
        """[tokens] by (inputs x outputs)."""
        by_inputs = _between(self._gemm["outputs"], self._linear, num_outputs)
        return _between(self._gemm["inputs"], by_inputs, num_inputs)

    def prompt_attention_s(self, num_heads: float) -> Times:
        """[squares]: of one prompt."""
        return _between(self._prompts["heads"], np.array(self._prompts["us"]) * 1e-6, num_heads)

    def decode_attention_s(self, num_sequences: float) -> Times:
        """[contexts]: of so many sequences of one KV head, each with as much context."""
        sizes = self._decodes["sequences"]
        if num_sequences > sizes[-1]:  # the GPU is full
            whole: Times = self._decode_rows[-1] * (num_sequences / sizes[-1])
            return whole
        return _between(sizes, self._decode_rows, num_sequences)

    def all_reduce_s(self, num_ranks: int, num_bytes: Times) -> Times:
        """Between ranks of one node, as long as all of `num_bytes`."""
        if num_ranks == 1:
            return np.zeros_like(num_bytes)
        sizes = self._all_reduce["bytes"]
        times = _between(self._all_reduce["ranks"], np.array(self._all_reduce["us"]) * 1e-6, num_ranks)
        beyond = np.maximum(num_bytes / sizes[-1], 1.0)
        found: Times = np.interp(num_bytes, sizes, times) * beyond
        return found


@cache
def kernel_tables(gpu: str) -> KernelTables:
    return KernelTables(read_json(f"kernels_{gpu}.json"))


def _between(sizes: list[int], tables: Times, size: float) -> Times:
    """The table of `size`, from those of the two `sizes` beside it; beyond the last, as the line there goes on."""
    at = int(np.clip(np.searchsorted(sizes, size, side="right") - 1, 0, len(sizes) - 2))
    weight = max((size - sizes[at]) / (sizes[at + 1] - sizes[at]), 0.0)
    found: Times = tables[at] + weight * (tables[at + 1] - tables[at])
    return found
