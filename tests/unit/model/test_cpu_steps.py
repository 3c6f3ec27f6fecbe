"""Numba's kernels against torch, and when they are taken."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from cluster.engine.scheduler_output import ScheduledSequence, SchedulerOutput
from cluster.model import cpu_steps
from cluster.model.attention import Span
from cluster.model.batch import make_batch
from cluster.model.cpu_steps import CpuSteps, NumbaSteps, make_cpu_steps
from cluster.model.decoder import Decoder
from cluster.model.errors import NonFiniteLogits
from cluster.model.kv_cache import KVCache
from cluster.model.load import load_model
from cluster.model.packed_products import OneDnnProduct, has_onednn
from tests.unit.model.factories import BLOCK_SIZE, checkpoint, make_runner, make_sequence, rand
from tests.unit.model.numba_kernels import NumbaAttention, NumbaDecoder, numba_layers

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("num_rows", "size"), [(1, 1), (3, 100), (17, 512)])
def test_layers_are_what_torch_computes(num_rows, size):
    hidden, added, weight = (rand(num_rows, size, seed=seed) for seed in range(3))
    total = hidden + added
    right = F.rms_norm(total, (size,), weight[0], 1e-5)
    torch.testing.assert_close(numba_layers.add_norm(hidden, added, weight[0], 1e-5), right)
    torch.testing.assert_close(hidden, total)
    torch.testing.assert_close(numba_layers.norm(hidden, weight[0], 1e-5), right)
    torch.testing.assert_close(hidden, total)


def test_gates_are_right_from_the_least_to_the_greatest():
    gates = torch.cat([torch.linspace(-200, 200, 2001), torch.tensor([0.0, -0.0, 1e-30, -1e-30, 1e30])])
    product = numba_layers.silu_multiply(torch.cat([gates, torch.ones(len(gates))])[None])
    torch.testing.assert_close(product[0], F.silu(gates), rtol=1e-5, atol=1e-32)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_a_number_stays_so_in_its_row_and_nowhere_else(bad):
    hidden = rand(3, 64)
    hidden[1, 5] = bad
    assert numba_layers.norm(hidden, torch.ones(64), 1e-5).isnan().any(dim=1).tolist() == [False, True, False]
    gate_up = rand(3, 64)
    gate_up[1, 5] = float("nan")
    assert numba_layers.silu_multiply(gate_up).isnan().any(dim=1).tolist() == [False, True, False]


@pytest.fixture
def num_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_what_a_token_attends_to_is_the_same_bits_beside_any_others_and_on_any_number_of_threads(num_threads):
    runner = make_runner(num_blocks=96)
    runner.kv_cache.tensor.copy_(rand(*runner.kv_cache.tensor.shape))
    shard, head_dim = runner.model.shard, runner.model.config.head_dim
    heads = rand(5, shard.num_heads + 2 * shard.num_kv_heads, head_dim)
    rotations = torch.view_as_real(torch.polar(torch.ones(5, 1, head_dim // 2), rand(5, 1, head_dim // 2)))
    spans = [
        Span(block_table=range(16 * row, 16 * row + 16), start=length, num_tokens=1)
        for row, length in enumerate([119, 90, 33, 32, 9])
    ]
    attention = NumbaAttention(runner.kv_cache, shard)

    def attend(rows: slice) -> torch.Tensor:
        attention.plan(spans[rows])
        return attention.turn_and_attend(1, heads[rows].clone(), rotations[rows])

    num_threads(1)
    alone = torch.cat([attend(slice(row, row + 1)) for row in range(5)])
    num_threads(2)
    assert torch.equal(attend(slice(5)), alone)


@pytest.mark.parametrize("num_rows", [1, 9])
@pytest.mark.parametrize(("num_kv_heads", "group"), [(1, 1), (2, 3), (1, 4), (2, 8), (3, 7), (1, 14)])
@pytest.mark.parametrize("head_dim", [16, 64, 80])
def test_attention_is_torchs_for_any_heads(num_rows, num_kv_heads, group, head_dim):
    """Queries and values are taken by tiles, and KV heads one by one where there are few rows."""
    num_heads, lengths = num_kv_heads * group, [1, 7, 8, 9, 30, 64, 65, 16, 2][:num_rows]
    cache = KVCache(9 * num_rows, 2, BLOCK_SIZE, num_kv_heads, head_dim, torch.float32)
    cache.tensor.copy_(rand(*cache.tensor.shape))
    for row, end in enumerate(lengths):  # what lies behind a context is not read
        cache.tensor[9 * row + (end - 1) // BLOCK_SIZE, :, :, (end - 1) % BLOCK_SIZE + 1 :] = float("nan")
        cache.tensor[9 * row + (end - 1) // BLOCK_SIZE + 1 : 9 * row + 9] = float("nan")
    heads = rand(num_rows, num_heads + 2 * num_kv_heads, head_dim, seed=1)
    rotations = torch.view_as_real(torch.ones(num_rows, 1, head_dim // 2, dtype=torch.complex64))
    tables = [list(range(9 * row, 9 * row + 9)) for row in range(num_rows)]
    shard = SimpleNamespace(num_heads=num_heads, num_kv_heads=num_kv_heads)
    attention = NumbaAttention(cache, shard)
    attention.plan(
        [Span(block_table=table, start=end - 1, num_tokens=1) for table, end in zip(tables, lengths, strict=True)]
    )
    attended = attention.turn_and_attend(1, heads.clone(), rotations).view(num_rows, num_heads, head_dim)
    for row, end in enumerate(lengths):
        keys, values = cache.tensor[tables[row], :, 1].transpose(0, 1).reshape(2, -1, num_kv_heads, head_dim)[:, :end]
        assert torch.equal(keys[-1], heads[row, num_heads:-num_kv_heads])
        assert torch.equal(values[-1], heads[row, -num_kv_heads:])
        query = heads[row, :num_heads].unsqueeze(1)
        own = (it.transpose(0, 1).repeat_interleave(group, dim=0) for it in (keys, values))
        right = F.scaled_dot_product_attention(query, *own).squeeze(1)
        torch.testing.assert_close(attended[row], right, rtol=1e-4, atol=1e-5)


def test_heads_that_do_not_fill_a_vector_are_left_to_torch():
    with pytest.raises(ValueError, match="head_dim 24 is not a multiple of 16"):
        NumbaAttention(KVCache(2, 1, BLOCK_SIZE, 1, 24, torch.float32), SimpleNamespace(num_heads=1, num_kv_heads=1))


def test_a_sequence_without_a_number_spoils_no_other():
    runner = make_runner(num_blocks=96)
    steps = NumbaSteps(runner.model, runner.kv_cache)
    runner.kv_cache.tensor[16:32] = float("nan")
    last = [make_sequence(length, request_id=str(length)) for length in (120, 90, 33)]
    for index, sequence in enumerate(last):
        sequence.block_table = list(range(16 * index, 16 * index + 16))
    entries = [ScheduledSequence(sequence=it, start=it.num_tokens - 1, num_tokens=1, samples=True) for it in last]
    with torch.inference_mode():
        logits = steps.compute(make_batch(entries))
    assert logits.isnan().any(dim=1).tolist() == [False, True, False]


def test_a_block_that_a_token_begins_is_cleared_of_what_was_there():
    """It may go to an instance that multiplies by zero what is not written yet."""
    runner = make_runner()
    runner.kv_cache.tensor.fill_(float("nan"))
    sequence = make_sequence(BLOCK_SIZE + 1)
    sequence.block_table = [3, 5]
    steps = NumbaSteps(runner.model, runner.kv_cache)
    with torch.inference_mode():
        for start, num_tokens in ((0, BLOCK_SIZE), (BLOCK_SIZE, 1)):
            entry = ScheduledSequence(sequence=sequence, start=start, num_tokens=num_tokens, samples=False)
            assert steps.compute(make_batch([entry])) is None
    assert runner.kv_cache.tensor[[3, 5]].isfinite().all()
    assert (runner.kv_cache.tensor[5, :, :, 1:] == 0).all()


class Half:
    """One of two ranks, each in a thread; what they reduce or gather is put together when both are there."""

    world_size = 2

    def __init__(self, rank: int, parts: dict[int, torch.Tensor], barrier: threading.Barrier) -> None:
        self.rank, self.parts, self.barrier = rank, parts, barrier

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._put_together(tensor, torch.add)

    def gather_columns(self, tensor: torch.Tensor) -> torch.Tensor | None:
        gathered = self._put_together(tensor, lambda *parts: torch.cat(parts, dim=-1))
        return None if self.rank else gathered

    def _put_together(self, tensor: torch.Tensor, how: Callable[..., torch.Tensor]) -> torch.Tensor:
        self.parts[self.rank] = tensor
        self.barrier.wait()
        whole = how(self.parts[0], self.parts[1])
        self.barrier.wait()
        return whole


def test_ranks_compute_together_what_one_computes():
    """Chunks, then single tokens, then a single token alone: which no rank can take through all layers by itself."""
    whole = make_runner("qwen3")
    parts, barrier = {}, threading.Barrier(2, timeout=60)
    steps = []
    for rank in range(2):
        model = load_model(checkpoint("qwen3"), communicator=Half(rank, parts, barrier))
        steps.append(NumbaSteps(model, KVCache(64, *model.kv_shape(BLOCK_SIZE), torch.float32)))
    sequences = [make_sequence(length, request_id=str(length)) for length in (30, 21)]
    for index, sequence in enumerate(sequences):
        sequence.block_table = list(range(8 * index, 8 * index + 8))
    entries = [ScheduledSequence(sequence=it, start=0, num_tokens=it.num_tokens - 2, samples=False) for it in sequences]
    single = [ScheduledSequence(sequence=it, start=it.num_tokens - 2, num_tokens=1, samples=True) for it in sequences]
    last = ScheduledSequence(sequence=sequences[1], start=sequences[1].num_tokens - 1, num_tokens=1, samples=True)

    def compute(one: CpuSteps | NumbaSteps) -> list[torch.Tensor | None]:
        with torch.inference_mode():
            return [one.compute(make_batch(step)) for step in (entries, single, [last])]

    with ThreadPoolExecutor(2) as pool:
        together, others = pool.map(compute, steps)
    assert others == [None] * 3
    for logits, right in zip(together, compute(CpuSteps(whole.model, whole.kv_cache)), strict=True):
        torch.testing.assert_close(logits, right, rtol=1e-4, atol=1e-5)


def test_steps_of_single_tokens_are_one_call_and_others_are_not(monkeypatch):
    called = []
    monkeypatch.setattr(cpu_steps, "fused_forward", lambda *_: called.append("by parts"))
    monkeypatch.setattr(Decoder, "logits_of", lambda *_: None)
    sequence = make_sequence(20)
    sequence.block_table = [0, 1, 2]
    single, chunk = (
        make_batch([ScheduledSequence(sequence=sequence, start=20 - num_tokens, num_tokens=num_tokens, samples=True)])
        for num_tokens in (1, 3)
    )
    runner = make_runner()
    steps = NumbaSteps(runner.model, runner.kv_cache)
    assert steps.compute(single) is not None
    assert called == []
    assert steps.compute(chunk) is None
    assert called == ["by parts"]


def test_kernels_are_loaded_for_models_that_are_worth_it(monkeypatch):
    runner = make_runner()
    assert isinstance(make_cpu_steps(runner.model, runner.kv_cache), CpuSteps)
    monkeypatch.setattr(cpu_steps, "LEAST_PARAMETERS", runner.model.config.num_parameters)
    assert isinstance(make_cpu_steps(runner.model, runner.kv_cache), NumbaSteps)
    half = make_runner(dtype=torch.bfloat16)
    assert isinstance(make_cpu_steps(half.model, half.kv_cache), CpuSteps)


def test_without_numba_torch_computes_and_the_log_says_so(monkeypatch, caplog):
    runner = make_runner()
    monkeypatch.setitem(sys.modules, "cluster.model.numba_attention", None)
    monkeypatch.setattr(cpu_steps, "LEAST_PARAMETERS", 0)
    cpu_steps._say_without.cache_clear()
    with caplog.at_level("INFO"):
        assert isinstance(make_cpu_steps(runner.model, runner.kv_cache), CpuSteps)
    assert "without Numba's kernels" in caplog.text
    assert caplog.records[-1].levelname == "INFO"


@pytest.mark.parametrize("problem", [RuntimeError("cannot cache function: no locator available"), OSError("disk full")])
def test_with_a_numba_that_does_not_work_torch_computes_and_a_warning_says_so(problem, monkeypatch, caplog):
    def fail(*_: object) -> None:
        raise problem

    runner = make_runner()
    monkeypatch.setattr(numba_layers, "norm", fail)
    monkeypatch.setattr(cpu_steps, "LEAST_PARAMETERS", 0)
    cpu_steps._say_without.cache_clear()
    assert isinstance(make_cpu_steps(runner.model, runner.kv_cache), CpuSteps)
    assert str(problem) in caplog.text
    assert caplog.records[-1].levelname == "WARNING"


@pytest.mark.parametrize("packs", [True, False])
def test_nothing_is_left_of_kernels_that_fail_late(packs, monkeypatch):
    """When all products are packed for them already."""

    def fail(*_: object) -> None:
        raise MemoryError

    if packs and not has_onednn():
        pytest.skip("torch has no oneDNN here")
    runner = make_runner()
    monkeypatch.setattr(NumbaDecoder, "_load_kernel", fail)
    monkeypatch.setattr(cpu_steps, "LEAST_PARAMETERS", 0)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", packs)
    assert isinstance(make_cpu_steps(runner.model, runner.kv_cache), CpuSteps)
    products = [linear.product for linear in runner.model.linears]
    assert all(isinstance(it, OneDnnProduct) if packs else it is F.linear for it in products)


LOADS = """
import sys
import torch
from cluster.model import cpu_steps
from cluster.model.errors import NonFiniteLogits
from cluster.model.kv_cache import KVCache
from cluster.model.load import load_model

torch.set_num_threads(1)
model = load_model(sys.argv[1])
cpu_steps.LEAST_PARAMETERS = 0
steps = cpu_steps.make_cpu_steps(model, KVCache(4, *model.kv_shape(8), torch.float32))
print(type(steps).__name__, torch.get_num_threads())
"""


def test_torch_keeps_its_number_of_threads_when_the_kernels_are_loaded():
    """In a process that has not loaded them yet."""
    done = subprocess.run(
        [sys.executable, "-c", LOADS, str(checkpoint("llama"))],
        env={**os.environ, "NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    assert done.stdout.split() == ["NumbaSteps", "1"]


def test_a_request_without_a_number_is_named_and_the_others_go_on_alone(monkeypatch):
    monkeypatch.setattr(cpu_steps, "LEAST_PARAMETERS", 0)
    runner = make_runner()
    sequences = [make_sequence(20, request_id=name) for name in ("bad", "good")]
    for index, sequence in enumerate(sequences):
        sequence.block_table = [4 * index, 4 * index + 1, 4 * index + 2]
    prompts = [ScheduledSequence(sequence=it, start=0, num_tokens=19, samples=False) for it in sequences]
    last = [ScheduledSequence(sequence=it, start=19, num_tokens=1, samples=True) for it in sequences]
    runner.run(SchedulerOutput(scheduled=tuple(prompts)))
    (right,) = runner.run(SchedulerOutput(scheduled=(last[1],)))
    runner.kv_cache.tensor[0] = float("nan")
    with pytest.raises(NonFiniteLogits) as caught:
        runner.run(SchedulerOutput(scheduled=tuple(last)))
    assert caught.value.request_ids == ("bad",)
    with pytest.raises(NonFiniteLogits):
        runner.run(SchedulerOutput(scheduled=(last[0],)))
    assert runner.run(SchedulerOutput(scheduled=(last[1],))) == [right]
