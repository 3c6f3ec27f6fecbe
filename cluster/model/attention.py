"""The one seam between a model and the device's way to attend: plan once a step, then attend layer by layer."""

from collections.abc import Sequence as List
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cluster.model.config import Shard
from cluster.model.kv_cache import KVCache


@dataclass(slots=True, kw_only=True)  # frozen ones take four times as long to make, in every step
class Span:
    """Tokens [start, start + num_tokens) of one sequence, whose KV for [0, start) lies in the blocks of its table."""

    block_table: List[int]
    start: int
    num_tokens: int

    @property
    def end(self) -> int:
        return self.start + self.num_tokens


def count_decodes(spans: List[Span]) -> int:
    """Of spans whose single tokens come first, how many these are."""
    return next((i for i, span in enumerate(spans) if span.num_tokens > 1), len(spans))


class Attention(Protocol):
    """Attends for the spans of a step, whose tokens lie one after the other in the order of `spans`."""

    def plan(self, spans: List[Span]) -> None: ...

    def attend(self, layer: int, heads: Tensor) -> Tensor:
        """Stores the new K and V and attends, to [num_tokens, num_heads * head_dim].

        `heads` are queries, keys (both rotated) and values, [num_tokens, num_heads + 2 * num_kv_heads, head_dim].
        """
        ...


def make_attention(kv_cache: KVCache, shard: Shard) -> Attention:
    """The one for the device that the cache is on."""
    if kv_cache.tensor.device.type == "cuda":
        from cluster.model.gpu_attention import make_gpu_attention

        return make_gpu_attention(kv_cache, shard)
    from cluster.model.cpu_attention import CpuAttention

    return CpuAttention(kv_cache, shard)


def causal_mask(span: Span, dtype: torch.dtype) -> Tensor:
    """Additive mask [num_tokens, end]: token i of the span sees the tokens up to start + i."""
    mask = torch.full((span.num_tokens, span.end), float("-inf"), dtype=dtype)
    return mask.triu_(span.start + 1)
