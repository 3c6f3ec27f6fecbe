"""Our kernels against attention written out, and against CpuAttention."""

import os
import random

import pytest
import torch

from cluster.model.attention import Span
from cluster.model.cpu_attention import CpuAttention
from cluster.model.step_tensors import StepTensors
from tests.unit.model.gpu_kernels import (
    DEVICE,
    TOLERANCES,
    fill_prefixes,
    make_cache,
    make_heads,
    make_shard,
    make_spans,
    on_device,
    reference,
)

pytestmark = pytest.mark.unit

triton_attention = pytest.importorskip("cluster.model.triton_attention")


def draw_shape(seed: int) -> dict:
    draw = random.Random(seed)
    group, num_kv_heads = draw.choice([1, 2, 3, 4, 7, 8]), draw.choice([1, 2, 3])
    chunks = [(draw.randrange(100), draw.choice([1, 1, 1, 2, 5, 20])) for _ in range(draw.randint(1, 4))]
    return {
        "shard": make_shard(group * num_kv_heads, num_kv_heads),
        "block_size": draw.choice([1, 3, 4, 8, 16, 32, 48]),
        "head_dim": draw.choice([8, 16, 20, 32, 64]),
        "chunks": [(start if draw.random() < 0.8 else 0, num_tokens) for start, num_tokens in chunks],
        "window": draw.choice([None, None, 1, 7, 64, 80]),
    }


def attend_both(seed: int, dtype: torch.dtype, **options) -> tuple[torch.Tensor, torch.Tensor]:
    """What the kernels say, and what is right."""
    shape = draw_shape(seed)
    shard, head_dim, window = shape["shard"], shape["head_dim"], shape["window"]
    num_blocks = 2 + sum(-(-sum(chunk) // shape["block_size"]) for chunk in shape["chunks"])
    cache = make_cache(shard, block_size=shape["block_size"], head_dim=head_dim, dtype=dtype, num_blocks=num_blocks)
    spans = make_spans(cache, shape["chunks"], seed)
    fill_prefixes(cache, spans, seed)
    heads = make_heads(spans, shard, head_dim, dtype, seed)
    attention = triton_attention.TritonAttention(on_device(cache), shard, window=window, **options)
    attention.plan(spans)
    return attention.attend(1, heads.to(DEVICE)).cpu().double(), reference(cache, shard, spans, heads, 1, window)


NUM_SHAPES = int(os.environ.get("BATON_KERNEL_SHAPES", "4"))


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("seed", range(NUM_SHAPES))
def test_any_shape_is_attended_to_as_it_is_written(seed, dtype):
    found, right = attend_both(seed, dtype)
    torch.testing.assert_close(found, right, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])


def test_kernels_agree_with_the_cpu_reference_and_leave_the_same_cache():
    shard = make_shard(4, 2)
    cpu = make_cache(shard, block_size=4, head_dim=16, dtype=torch.float32)
    spans = make_spans(cpu, [(11, 1), (6, 1), (3, 5), (0, 6)])
    cpu.tensor.zero_()  # the reference reads masked slots, and clears blocks for that
    fill_prefixes(cpu, spans)
    gpu, heads = on_device(cpu), make_heads(spans, shard, 16, torch.float32)
    reference_attention, attention = CpuAttention(cpu, shard), triton_attention.TritonAttention(gpu, shard)
    for each in (reference_attention, attention):
        each.plan(spans)
    for layer in range(2):
        right = reference_attention.attend(layer, heads)
        torch.testing.assert_close(attention.attend(layer, heads.to(DEVICE)).cpu(), right, rtol=2e-5, atol=2e-5)
    assert torch.equal(gpu.tensor.cpu(), cpu.tensor)


def test_a_token_is_the_same_bits_alone_and_in_any_batch_where_that_is_asked_for():
    shard, dtype = make_shard(4, 2), torch.bfloat16
    cache = make_cache(shard, block_size=4, head_dim=16, dtype=dtype)
    (whole,) = make_spans(cache, [(0, 75)])
    heads = make_heads([whole], shard, 16, dtype).to(DEVICE)
    attention = triton_attention.TritonAttention(on_device(cache), shard, batch_invariant=True)
    attention.plan([whole])
    together = attention.attend(0, heads)
    (beside,) = (Span(block_table=[b for b in range(48) if b not in whole.block_table], start=0, num_tokens=1),)
    for start, end in ((0, 64), (64, 74), (74, 75)):  # chunks, then a decode with another sequence in the batch
        part = Span(block_table=whole.block_table, start=start, num_tokens=end - start)
        spans = sorted((part, beside), key=lambda span: span.num_tokens > 1)
        attention.plan(spans)
        first = 0 if spans[0] is part else 1
        rows = torch.cat([heads[start:end], heads[:1]] if first == 0 else [heads[:1], heads[start:end]])
        found = attention.attend(0, rows)[first : first + end - start]
        assert torch.equal(found, together[start:end])


def test_every_number_of_splits_that_a_step_may_ask_for_is_compiled_before(monkeypatch):
    shard = make_shard(4, 2)
    cache = on_device(make_cache(shard, block_size=4, head_dim=16, dtype=torch.float32))
    attention, compiled = triton_attention.TritonAttention(cache, shard), set()
    decode = attention._decode

    def decode_and_note(*arguments) -> None:
        compiled.add(attention.num_splits)
        decode(*arguments)

    monkeypatch.setattr(attention, "_decode", decode_and_note)
    attention.compile_decode()
    for num_processors in (8, 132):
        attention._num_processors = num_processors
        asked = {attention.splits_for(count, context) for count in range(70) for context in (1, 65, 300, 5000)}
        assert asked <= compiled
        assert max(asked) > 4


def test_a_row_of_padding_stores_nothing_and_comes_out_as_zeros():
    shard = make_shard(2, 1)
    cache = on_device(make_cache(shard, block_size=4, head_dim=16, dtype=torch.float32))
    before = cache.tensor.clone()
    attention = triton_attention.TritonAttention(cache, shard)
    zeros = torch.zeros(2, dtype=torch.int32, device=DEVICE)
    attention.plan_tensors(
        StepTensors(
            tables=zeros.view(2, 1),
            contexts=zeros,
            chunk_starts=torch.arange(3, dtype=torch.int32, device=DEVICE),
            slots=zeros - 1,
            num_decodes=2,
            max_chunk=1,
            max_context=200,
        )
    )
    assert attention.num_splits > 1
    assert not attention.attend(0, torch.ones(2, 4, 16, device=DEVICE)).any()
    assert torch.equal(cache.tensor.nan_to_num(), before.nan_to_num())
