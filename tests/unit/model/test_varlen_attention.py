"""What torch's varlen_attn is called with: by one that is written out here, on the CPU, and by the real signature."""

import inspect
from typing import Any

import pytest
import torch

from cluster.model.kv_cache import KVCache
from tests.unit.model.gpu_kernels import (
    fill_prefixes,
    make_cache,
    make_heads,
    make_shard,
    make_spans,
    on_device,
    reference,
)

pytestmark = pytest.mark.unit

gpu_attention = pytest.importorskip("cluster.model.gpu_attention")

from cluster.model.varlen_attention import VarlenAttention, find_varlen_attn  # noqa: E402  # needs Triton


def written_out(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, **options: Any) -> torch.Tensor:
    """varlen_attn as it is documented, over block tables; what it is told of lengths has to agree."""
    signature = inspect.signature(find_varlen_attn())
    signature.bind(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, **options)
    lengths, tables, (left, right) = options["seqused_k"], options["block_table"], options["window_size"]
    assert max_q >= int(cu_seq_q.diff().max())
    assert max_k >= int(lengths.max())
    if cu_seq_k is not None:
        assert torch.equal(cu_seq_k.diff(), lengths)
        assert options["num_splits"] == 1
    outputs = []
    for row, (first, end) in enumerate(zip(cu_seq_q[:-1].tolist(), cu_seq_q[1:].tolist(), strict=True)):
        length, group = int(lengths[row]), query.shape[1] // key.shape[2]
        keys, values = (
            pool[tables[row].long()].flatten(0, 1)[:length].nan_to_num().repeat_interleave(group, dim=1)
            for pool in (key, value)
        )
        scores = torch.einsum("qhd,khd->hqk", query[first:end], keys) * query.shape[-1] ** -0.5
        distance = torch.arange(length - (end - first), length)[:, None] - torch.arange(length)
        hidden = (distance < -right) | ((distance > left) & (left >= 0))
        outputs.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, float("-inf")).softmax(-1), values))
    return torch.cat(outputs)


@pytest.mark.parametrize("flash", [2, 3])
@pytest.mark.parametrize("window", [None, 5])
def test_arguments_mean_what_torch_documents(flash, window):
    shard = make_shard(4, 2)
    cache = make_cache(shard, block_size=4, head_dim=16, dtype=torch.float32)
    spans = make_spans(cache, [(11, 1), (6, 1), (3, 5), (0, 6)])
    fill_prefixes(cache, spans)
    heads = make_heads(spans, shard, 16, torch.float32)
    attention = VarlenAttention(on_cpu(cache), shard, written_out, flash=flash, window=window)
    attention.plan(spans)
    right = reference(cache, shard, spans, heads, 1, window).float()
    torch.testing.assert_close(attention.attend(1, heads), right, rtol=2e-5, atol=2e-5)


def on_cpu(cache: KVCache) -> KVCache:
    if torch.cuda.is_available():
        pytest.skip("written out on the CPU: with a GPU, the kernels beside it run there")
    return on_device(cache)


def test_the_trial_finds_what_fails_and_what_is_wrong():
    shard = make_shard(2, 1)
    cache = on_cpu(make_cache(shard, block_size=16, head_dim=16, dtype=torch.float32))

    def verdict(varlen_attn: Any) -> str:
        return gpu_attention.disagreement(VarlenAttention(cache, shard, varlen_attn, flash=3))

    def refuses(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("page size")

    assert verdict(written_out) == ""
    assert verdict(refuses) == "fails (page size)"
    assert verdict(lambda *arguments, **options: float("nan") * written_out(*arguments, **options)) == "is off by inf"
