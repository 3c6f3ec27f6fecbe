"""Where Triton's kernels are tested: on the GPU if there is one, or else on the CPU, in its interpreter."""

import os
import random

import pytest
import torch

from cluster.model.attention import Span
from cluster.model.config import Shard
from cluster.model.kv_cache import KVCache

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
if DEVICE.type == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # Triton 3.9 warns where it is not said
pytest.importorskip("triton", reason="triton is not installed: its kernels are not tested (make test-kernels)")

TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 2e-2}


def make_shard(num_heads: int, num_kv_heads: int) -> Shard:
    return Shard(
        rank=0, world_size=1, num_heads=num_heads, num_kv_heads=num_kv_heads, intermediate_size=1, vocab_size=1
    )


def make_cache(shard: Shard, *, block_size: int, head_dim: int, dtype: torch.dtype, num_blocks: int = 48) -> KVCache:
    """Two layers, on the CPU, full of what must never be read."""
    cache = KVCache(num_blocks, 2, block_size, shard.num_kv_heads, head_dim, dtype)
    cache.tensor.fill_(float("nan"))
    return cache


def on_device(cache: KVCache) -> KVCache:
    """A copy where the kernels run."""
    num_blocks, _, num_layers, block_size, num_kv_heads, head_dim = cache.tensor.shape
    copy = KVCache(num_blocks, num_layers, block_size, num_kv_heads, head_dim, cache.tensor.dtype)
    copy.tensor = cache.tensor.to(DEVICE, copy=True)
    return copy


def make_spans(cache: KVCache, chunks: list[tuple[int, int]], seed: int = 0) -> list[Span]:
    """(start, number of tokens) of each; the tables are drawn, and no block is in two."""
    free = list(range(cache.num_blocks))
    random.Random(seed).shuffle(free)
    spans = []
    for start, num_tokens in sorted(chunks, key=lambda chunk: (chunk[1] > 1, -chunk[0])):
        num_blocks = -(-(start + num_tokens) // cache.block_size)
        table, free = free[:num_blocks], free[num_blocks:]
        spans.append(Span(block_table=table, start=start, num_tokens=num_tokens))
    return spans


def fill_prefixes(cache: KVCache, spans: list[Span], seed: int = 0) -> None:
    """KV for the tokens before each span; slots behind them keep what they have."""
    generator = torch.Generator().manual_seed(seed)
    for span in spans:
        for position in range(span.start):
            slot = cache.tensor[span.block_table[position // cache.block_size], :, :, position % cache.block_size]
            slot.copy_(torch.randn(slot.shape, generator=generator))


def make_heads(spans: list[Span], shard: Shard, head_dim: int, dtype: torch.dtype, seed: int = 1) -> torch.Tensor:
    num_tokens = sum(span.num_tokens for span in spans)
    shape = (num_tokens, shard.num_heads + 2 * shard.num_kv_heads, head_dim)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def reference(
    cache: KVCache, shard: Shard, spans: list[Span], heads: torch.Tensor, layer: int, window: int | None = None
) -> torch.Tensor:
    """Attention written out in doubles, on the CPU, with the span's own KV from `heads`."""
    outputs, first = [], 0
    for span in spans:
        rows = heads[first : first + span.num_tokens].double()
        first += span.num_tokens
        slots = [(span.block_table[p // cache.block_size], p % cache.block_size) for p in range(span.start)]
        before = torch.stack([cache.tensor[block, :, layer, slot] for block, slot in slots]) if slots else None
        new = rows[:, shard.num_heads :].unflatten(1, (2, shard.num_kv_heads))
        context = new if before is None else torch.cat([before.double(), new])
        keys, values = context.repeat_interleave(shard.num_heads // shard.num_kv_heads, dim=2).unbind(1)
        scores = torch.einsum("qhd,khd->hqk", rows[:, : shard.num_heads], keys) * heads.shape[-1] ** -0.5
        distance = torch.arange(span.start, span.end)[:, None] - torch.arange(span.end)
        hidden = (distance < 0) | (distance >= (window or span.end))
        weights = scores.masked_fill(hidden, float("-inf")).softmax(dim=-1)
        outputs.append(torch.einsum("hqk,khd->qhd", weights, values).flatten(1))
    return torch.cat(outputs)
