"""Which attention a GPU gets: torch's where it works here, our own kernels else. Chosen once, and said once."""

import logging
from functools import cache

import torch

from cluster.model.attention import Span
from cluster.model.config import Shard
from cluster.model.kv_cache import KVCache
from cluster.model.triton_attention import TritonAttention
from cluster.model.varlen_attention import VarlenAttention, activate_flash_3, find_varlen_attn

TOLERANCE = 2e-2
TRIAL = ((70, 1), (40, 1), (0, 9), (20, 5))
"""(start, number of tokens) of the sequences on which torch's attention is tried."""

log = logging.getLogger(__name__)


def make_gpu_attention(
    kv_cache: KVCache, shard: Shard, *, window: int | None = None, batch_invariant: bool = False
) -> TritonAttention:
    """Torch's is tried on a few tokens in blocks of this very shape, because what it takes differs by version."""
    if batch_invariant:
        _say("our Triton kernels, batch-invariant")
        return TritonAttention(kv_cache, shard, window=window, batch_invariant=True)
    attention, reason = _try_varlen(kv_cache, shard, window)
    if attention is None:
        _say(f"our Triton kernels, because {reason}")
        return TritonAttention(kv_cache, shard, window=window)
    _say(f"torch's varlen_attn on FlashAttention {attention.flash}" + f", because {reason}" * bool(reason))
    return attention


@cache
def _say(what: str) -> None:
    """Once a process: a warm-up chooses too."""
    log.info("attention: %s", what)


def _try_varlen(kv_cache: KVCache, shard: Shard, window: int | None) -> tuple[VarlenAttention | None, str]:
    """With why not, or why not on FlashAttention 3."""
    varlen_attn = find_varlen_attn()
    if varlen_attn is None:
        return None, f"varlen_attn of torch {torch.__version__} takes no block tables"
    if kv_cache.tensor.dtype != torch.bfloat16:
        return None, f"varlen_attn does not compute in {kv_cache.tensor.dtype}"
    reason = activate_flash_3(kv_cache.tensor.device)
    flash = 2 if reason else 3
    if flash == 2 and kv_cache.block_size % 256:
        return None, f"{reason}, and FlashAttention 2 reads blocks of multiples of 256 tokens only"
    trial = _trial_cache(kv_cache)
    problem = disagreement(VarlenAttention(trial, shard, varlen_attn, flash=flash, window=window))
    if problem:
        return None, f"varlen_attn on FlashAttention {flash} {problem}"
    return VarlenAttention(kv_cache, shard, varlen_attn, flash=flash, window=window), reason


def _trial_cache(like: KVCache) -> KVCache:
    num_blocks = sum(-(-sum(chunk) // like.block_size) for chunk in TRIAL)
    _, _, num_layers, block_size, num_kv_heads, head_dim = like.tensor.shape
    return KVCache(
        num_blocks, num_layers, block_size, num_kv_heads, head_dim, like.tensor.dtype, device=like.tensor.device
    )


def disagreement(attention: TritonAttention) -> str:
    """What is wrong with it beside our own kernels, over a cache that nobody uses; empty: nothing."""
    cache, device = attention.kv_cache, attention.kv_cache.tensor.device
    generator = torch.Generator().manual_seed(0)
    cache.tensor.copy_(torch.randn(cache.tensor.shape, generator=generator))
    spans = _trial_spans(cache.block_size)
    num_rows = attention.num_heads + 2 * attention.num_kv_heads
    shape = (sum(span.num_tokens for span in spans), num_rows, attention.head_dim)
    heads = torch.randn(shape, generator=generator).to(device, cache.tensor.dtype)
    own = TritonAttention(cache, attention.shard, window=attention.window or None)
    try:
        results = []
        for each in (own, attention):
            each.plan(spans)
            results.append(each.attend(cache.num_layers - 1, heads).float())
        worst = float((results[0] - results[1]).abs().nan_to_num(float("inf")).max())
    except (RuntimeError, ValueError, TypeError) as error:
        return f"fails ({error})"
    return f"is off by {worst:.2g}" if worst > TOLERANCE else ""


def _trial_spans(block_size: int) -> list[Span]:
    spans, first = [], 0
    for start, num_tokens in TRIAL:
        end = first + -(-(start + num_tokens) // block_size)
        spans.append(Span(block_table=range(first, end), start=start, num_tokens=num_tokens))
        first = end
    return spans
