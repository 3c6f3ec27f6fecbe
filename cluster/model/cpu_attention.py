"""Attention on a CPU: SDPA over gathered blocks. It is the reference for other devices too.

Queries of the heads that share a KV head are folded into the query-length axis, so that K and V are never repeated.
"""

from collections.abc import Iterator
from collections.abc import Sequence as List
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cluster.model.attention import Span, causal_mask, count_decodes
from cluster.model.config import Shard
from cluster.model.kv_cache import KVCache

GATHERED_BYTES = 1 << 20
"""What one decode group gathers at most per layer (or one sequence does): it is read again at once, from cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeGroup:
    """One-token spans [first, last) of like lengths, padded to the longest; `mask` is None where none is shorter."""

    first: int
    last: int
    block_rows: Tensor
    num_context_tokens: int
    mask: Tensor | None  # [last - first, 1, 1, num_context_tokens]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillSpan:
    """Tokens [first, last) of one sequence; with nothing before them they attend to themselves, without a gather."""

    first: int
    last: int
    block_rows: Tensor | None
    num_context_tokens: int
    mask: Tensor | None  # [last - first, num_context_tokens]


def clear_begun(kv_cache: KVCache, spans: List[Span]) -> None:
    """The blocks that these spans begin and do not fill."""
    for span in spans:
        first_slot = span.end - span.end % kv_cache.block_size
        if span.start <= first_slot < span.end:
            kv_cache.clear(span.block_table[first_slot // kv_cache.block_size])


class CpuAttention:
    """One-token spans must come first, the longest ones before the shorter ones."""

    def __init__(self, kv_cache: KVCache, shard: Shard) -> None:
        self.kv_cache = kv_cache
        self.num_heads, self.num_kv_heads = shard.num_heads, shard.num_kv_heads
        self.head_dim = kv_cache.tensor.shape[-1]
        self._gathered = kv_cache.tensor.new_empty(0)
        self._max_group_blocks = max(1, GATHERED_BYTES * kv_cache.num_layers // kv_cache.record_bytes)

    def plan(self, spans: List[Span]) -> None:
        block_size, cache = self.kv_cache.block_size, self.kv_cache
        positions = [(span, position) for span in spans for position in range(span.start, span.end)]
        blocks = torch.tensor([span.block_table[position // block_size] for span, position in positions])
        slots = torch.tensor([position % block_size for _, position in positions])
        self._token_rows = cache.token_row_index(blocks, slots)
        clear_begun(cache, spans)
        num_decodes = count_decodes(spans)
        self._groups = list(self._plan_groups(spans[:num_decodes]))
        self._prefills = list(self._plan_prefills(spans[num_decodes:], num_decodes))

    def attend(self, layer: int, heads: Tensor) -> Tensor:
        num_tokens = heads.shape[0]
        keys_values = heads[:, self.num_heads :].view(num_tokens, 2, -1)
        self.kv_cache.token_rows[layer].index_put_((self._token_rows,), keys_values)
        parts = [self._decode(group, layer, heads) for group in self._groups]
        parts += [self._prefill(span, layer, heads) for span in self._prefills]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _plan_groups(self, spans: List[Span]) -> Iterator[DecodeGroup]:
        """A group ends where padding would double a span's work, or where the gathered blocks would leave the cache."""
        first = 0
        while first < len(spans):
            num_blocks = self._num_blocks(spans[first])
            last = first + 1
            limit = min(len(spans), first + max(1, self._max_group_blocks // num_blocks))
            while last < limit and 2 * self._num_blocks(spans[last]) >= num_blocks:
                last += 1
            yield self._group(spans[first:last], first, num_blocks)
            first = last

    def _group(self, spans: List[Span], first: int, num_blocks: int) -> DecodeGroup:
        tables = [list(span.block_table[: self._num_blocks(span)]) for span in spans]
        padded = torch.tensor([table + table[-1:] * (num_blocks - len(table)) for table in tables])
        ends = torch.tensor([span.end for span in spans])
        longest = spans[0].end
        mask = None
        if spans[-1].end < longest:
            hidden = torch.arange(longest) >= ends[:, None]
            mask = torch.zeros(hidden.shape, dtype=self.kv_cache.tensor.dtype).masked_fill_(hidden, float("-inf"))
            mask = mask[:, None, None]
        return DecodeGroup(
            first=first,
            last=first + len(spans),
            block_rows=self.kv_cache.block_row_index(padded),
            num_context_tokens=longest,
            mask=mask,
        )

    def _plan_prefills(self, spans: List[Span], first: int) -> Iterator[PrefillSpan]:
        for span in spans:
            last = first + span.num_tokens
            table = torch.tensor(span.block_table[: self._num_blocks(span)])
            yield PrefillSpan(
                first=first,
                last=last,
                block_rows=self.kv_cache.block_row_index(table) if span.start else None,
                num_context_tokens=span.end,
                mask=causal_mask(span, self.kv_cache.tensor.dtype) if span.start else None,
            )
            first = last

    def _decode(self, group: DecodeGroup, layer: int, heads: Tensor) -> Tensor:
        size = group.last - group.first
        queries = heads[group.first : group.last, : self.num_heads].view(size, self.num_kv_heads, -1, self.head_dim)
        context = self._gather(group.block_rows, layer, size)[:, :, : group.num_context_tokens]
        keys, values = context.transpose(2, 3).unbind(0)  # [size, num_kv_heads, num_context_tokens, head_dim]
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=group.mask).reshape(size, -1)

    def _prefill(self, span: PrefillSpan, layer: int, heads: Tensor) -> Tensor:
        """KV heads are the batch here, and the query heads of each share its K and V by a stride of 0."""
        heads, num_tokens = heads[span.first : span.last], span.last - span.first
        queries = heads[:, : self.num_heads].view(num_tokens, self.num_kv_heads, -1, self.head_dim).permute(1, 2, 0, 3)
        if span.block_rows is None:
            context = heads[:, self.num_heads :].view(num_tokens, 2, -1, self.head_dim).transpose(0, 1)
        else:
            context = self._gather(span.block_rows, layer, 1)[:, 0, : span.num_context_tokens]
        # [2, num_context_tokens, num_kv_heads, head_dim] to [num_kv_heads, group, num_context_tokens, head_dim]
        keys, values = context.transpose(1, 2).unsqueeze(2).expand(-1, -1, queries.shape[1], -1, -1).unbind(0)
        attended = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=span.mask, is_causal=span.block_rows is None
        )
        return attended.permute(2, 0, 1, 3).reshape(num_tokens, -1)

    def _gather(self, block_rows: Tensor, layer: int, num_sequences: int) -> Tensor:
        """[2 (k, v), num_sequences, slots, num_kv_heads, head_dim], in memory that the next gather uses again."""
        rows = self.kv_cache.block_rows[layer]
        shape = (block_rows.shape[0], rows.shape[1])
        if self._gathered.numel() < shape[0] * shape[1]:
            self._gathered = rows.new_empty(shape[0] * shape[1])
        gathered = self._gathered[: shape[0] * shape[1]].view(shape)
        torch.index_select(rows, 0, block_rows, out=gathered)
        return gathered.view(2, num_sequences, -1, self.num_kv_heads, self.head_dim)

    def _num_blocks(self, span: Span) -> int:
        return -(-span.end // self.kv_cache.block_size)
