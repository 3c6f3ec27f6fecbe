"""The fused forward pass against the plain one, and the layers' kernels against torch."""

import pytest
import torch
import torch.nn.functional as F

from cluster.engine.scheduler_output import ScheduledSequence
from cluster.model.batch import make_batch
from cluster.model.cpu_attention import CpuAttention
from tests.unit.model.factories import make_runner, make_sequence
from tests.unit.model.gpu_kernels import DEVICE, TOLERANCES

pytestmark = pytest.mark.unit

triton_layers = pytest.importorskip("cluster.model.triton_layers")

from cluster.model.fused_forward import fused_forward  # noqa: E402  # needs Triton
from cluster.model.triton_attention import TritonAttention  # noqa: E402


def rand(*shape: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def close(found: torch.Tensor, right: torch.Tensor) -> None:
    tolerance = TOLERANCES[found.dtype]
    torch.testing.assert_close(found.double(), right.double(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_layers_are_what_torch_computes(dtype):
    hidden, added, weight = (rand(3, 100, dtype=dtype, seed=seed) for seed in range(3))
    total = hidden + added
    right = F.rms_norm(total.float(), (100,), weight[0].float(), 1e-5)
    close(triton_layers.add_norm(hidden, added, weight[0], 1e-5), right)
    close(hidden, total)
    close(triton_layers.norm(hidden, weight[0], 1e-5), right)
    gate_up = rand(3, 2 * 70, dtype=dtype)
    gate, up = gate_up.float().chunk(2, dim=-1)
    close(triton_layers.silu_multiply(gate_up), F.silu(gate) * up)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_a_row_of_the_invariant_product_is_the_same_bits_beside_any_others(dtype):
    rows, weight, bias = rand(70, 90, dtype=dtype), rand(40, 90, dtype=dtype) / 10, rand(40, dtype=dtype)
    together = triton_layers.invariant_linear(rows, weight, bias)
    close(together, F.linear(rows.double(), weight.double(), bias.double()))
    assert torch.equal(triton_layers.invariant_linear(rows[66:67], weight, bias), together[66:67])


@pytest.mark.skipif(DEVICE.type == "cuda", reason="tests/gpu does it on the GPU")
@pytest.mark.parametrize("name", ["llama", "qwen3-tied-biased"])
def test_the_fused_pass_is_the_plain_one(name):
    plain = make_runner(name)
    mixed = [make_sequence(tokens, request_id=str(tokens)) for tokens in (10, 6)]
    for index, sequence in enumerate(mixed):
        sequence.block_table = [2 * index, 2 * index + 1]
    chunks = [(mixed[0], 0, 9), (mixed[1], 0, 3)]
    first = [ScheduledSequence(sequence=s, start=start, num_tokens=n, samples=False) for s, start, n in chunks]
    second = [ScheduledSequence(sequence=s, start=n, num_tokens=s.num_tokens - n, samples=True) for s, _, n in chunks]
    fused = make_runner(name)
    attention = TritonAttention(fused.kv_cache, fused.model.shard)
    reference = CpuAttention(plain.kv_cache, plain.model.shard)
    with torch.inference_mode():
        for entries in (first, second):
            batch = make_batch(entries)
            reference.plan(batch.spans)
            attention.plan(batch.spans)
            right = plain.model.forward(batch.token_ids, batch.positions, reference)
            close(fused_forward(fused.model, batch.token_ids, batch.positions, attention, triton_layers), right)
    close(fused.kv_cache.tensor[:4], plain.kv_cache.tensor[:4])
