"""Attention on a GPU by torch's `varlen_attn` with block tables: FlashAttention 3 where it can be had, else 2.

Storing KV stays ours. FlashAttention 2 reads blocks of multiples of 256 slots only, and gives wrong results for several
sequences when it splits a context (pytorch#194167): it gets `num_splits=1`, and chunks alone; single tokens stay ours.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cluster.model.config import Shard
from cluster.model.kv_cache import KVCache
from cluster.model.triton_attention import TritonAttention

NEEDED = ("window_size", "enable_gqa", "seqused_k", "block_table", "num_splits")


class VarlenAttention(TritonAttention):
    """`varlen_attn`: torch's, or one of its shape. `flash`: which FlashAttention it runs on, 2 or 3."""

    def __init__(
        self, kv_cache: KVCache, shard: Shard, varlen_attn: Callable[..., Any], *, flash: int, window: int | None = None
    ) -> None:
        super().__init__(kv_cache, shard, window=window)
        self.flash = flash
        self._varlen_attn = varlen_attn
        self._window = (-1 if window is None else window - 1, 0)  # theirs does not count the token itself

    def _attend(self, layer: int, queries: Tensor, query_stride: int) -> Tensor:
        if self.flash == 2:
            return super()._attend(layer, queries, query_stride)
        return self._call(layer, queries, 0)

    def _chunks(self, layer: int, queries: Tensor, query_stride: int, outputs: Tensor, first: int) -> None:
        """Single tokens are sequences of one token: the sequence `first` begins at that row."""
        outputs[first:] = self._call(layer, queries[first:], first)

    def _call(self, layer: int, queries: Tensor, first: int) -> Tensor:
        step, cache = self.step, self.kv_cache.tensor
        contexts, chunk_starts = step.contexts[first:], step.chunk_starts[first:] - first
        attended: Tensor = self._varlen_attn(
            queries[:, : self.num_heads],
            cache[:, 0, layer],
            cache[:, 1, layer],
            chunk_starts,
            # 3 refuses lengths beside a block table, 2 asks for them and reads `seqused_k`.
            None if self.flash == 3 else F.pad(contexts.cumsum(0, dtype=torch.int32), (1, 0)),
            step.max_chunk,
            step.max_context,
            window_size=self._window,
            enable_gqa=True,
            seqused_k=contexts,
            block_table=step.tables[first:],
            num_splits=None if self.flash == 3 else 1,
        )
        return attended.flatten(1)


def find_varlen_attn() -> Callable[..., Any] | None:
    """torch's, if it knows block tables (2.11 and later)."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = inspect.signature(varlen_attn).parameters
    return varlen_attn if all(name in known for name in NEEDED) else None


def activate_flash_3(device: torch.device) -> str:
    """Empty if it is active now; else why it is not. It needs a Hopper GPU and the package `flash_attn_interface`."""
    major, minor = torch.cuda.get_device_capability(device)
    if major != 9:
        return f"FlashAttention 3 needs compute capability 9, not {major}.{minor}"
    try:
        from torch.nn.attention import activate_flash_attention_impl

        activate_flash_attention_impl("FA3")
    except (ImportError, RuntimeError, ValueError, OSError) as error:
        return f"FlashAttention 3 cannot be activated ({error})"
    return ""
