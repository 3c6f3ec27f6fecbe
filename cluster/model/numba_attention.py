"""Attention on a CPU where Numba is installed: single tokens attend to blocks where they lie, chunks as elsewhere."""

from collections.abc import Sequence as List

import numpy as np
import torch
from numba import set_num_threads
from torch import Tensor

from cluster.model.attention import Span, count_decodes
from cluster.model.config import Shard
from cluster.model.cpu_attention import CpuAttention, clear_begun
from cluster.model.kv_cache import KVCache
from cluster.model.numba_kernels import MOST_THREADS, DecodeStep, norm_heads, turn_and_attend
from cluster.model.numba_lanes import WIDTH
from cluster.model.rope import rotate_
from cluster.model.step_tensors import make_block_tables

FEW_ROWS = 4
"""To a thread: then each KV head is dealt out by itself."""


class NumbaAttention:
    """For fp32. One-token spans must come first, the longest ones before the shorter ones."""

    def __init__(self, kv_cache: KVCache, shard: Shard) -> None:
        if kv_cache.tensor.shape[-1] % WIDTH:
            raise ValueError(f"head_dim {kv_cache.tensor.shape[-1]} is not a multiple of {WIDTH}")
        self.num_heads, self.num_kv_heads = shard.num_heads, shard.num_kv_heads
        self._kv_cache, self._head_dim = kv_cache, kv_cache.tensor.shape[-1]
        self._cache = kv_cache.tensor.numpy()
        self._chunks = CpuAttention(kv_cache, shard)

    def plan(self, spans: List[Span]) -> None:
        set_num_threads(num_threads := min(torch.get_num_threads(), MOST_THREADS))
        self._num_decodes = count_decodes(spans)
        self._plan_decodes(spans[: self._num_decodes], num_threads)
        if self._num_decodes < len(spans):
            self._chunks.plan(spans[self._num_decodes :])

    def turn_and_attend(
        self, layer: int, heads: Tensor, rotations: Tensor, norms: Tensor | None = None, eps: float = 0.0
    ) -> Tensor:
        """To [num_tokens, num_heads * head_dim], for heads that are neither rotated nor normalised yet.

        `heads` [num_tokens, num_heads + 2 * num_kv_heads, head_dim] are written to; `rotations` [num_tokens, 1,
        head_dim / 2, 2]: cosine and sine; `norms` [num_heads + num_kv_heads, head_dim], where there are any.
        """
        if norms is not None:
            norm_heads(heads.numpy(), norms.numpy(), eps)
        if not self._num_decodes:
            return self._attend_chunks(layer, heads, rotations)
        attended = self._attend_decodes(layer, heads[: self._num_decodes], rotations)
        if self._num_decodes == len(heads):
            return attended
        chunks = slice(self._num_decodes, None)
        return torch.cat([attended, self._attend_chunks(layer, heads[chunks], rotations[chunks])])

    def _plan_decodes(self, spans: List[Span], num_threads: int) -> None:
        """The longest are dealt out to the threads in turn: each gets one stretch of `order`.

        No kernel here reads slots that are not written yet, but where a block goes one may: it is cleared all the same.
        """
        clear_begun(self._kv_cache, spans)
        tables, contexts = make_block_tables(spans, self._kv_cache.block_size)
        rows = np.arange(len(spans), dtype=np.int32)
        order = np.concatenate([rows[first::num_threads] for first in range(num_threads)])
        num_parts = 1 if len(spans) >= FEW_ROWS * num_threads else self.num_kv_heads
        self.step = DecodeStep(tables=tables, contexts=contexts, order=order, num_parts=num_parts)

    def _attend_decodes(self, layer: int, heads: Tensor, rotations: Tensor) -> Tensor:
        outputs = heads.new_empty(len(heads), self.num_heads, self._head_dim)
        turn_and_attend(
            heads.numpy(),
            rotations[: len(heads)].squeeze(1).numpy(),
            self._cache,
            layer,
            *self.step,
            outputs.numpy(),
        )
        return outputs.flatten(1)

    def _attend_chunks(self, layer: int, heads: Tensor, rotations: Tensor) -> Tensor:
        rotate_(heads[:, : self.num_heads + self.num_kv_heads], torch.view_as_complex(rotations))
        return self._chunks.attend(layer, heads)
