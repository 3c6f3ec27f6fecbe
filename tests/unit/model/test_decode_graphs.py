"""Decoding by recorded steps, without a GPU or Triton: padding, memory that stays in place, and what runs when."""

import random
from contextlib import nullcontext
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from cluster.model import decode_inputs
from cluster.model.attention import Span
from cluster.model.batch import Batch
from cluster.model.decode_graphs import DecodeGraphs, padded_sizes
from cluster.model.decode_inputs import DecodeInputs
from cluster.model.errors import OutOfDeviceMemory
from tests.unit.model.factories import make_engine, make_runner, make_sequence

pytestmark = pytest.mark.unit

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BLOCK_SIZE, MAX_BLOCKS, MAX_SEQS = 4, 6, 12


def make_batch(tables: list[list[int]], positions: list[int]) -> Batch:
    return Batch(
        spans=tuple(
            Span(block_table=table, start=start, num_tokens=1) for table, start in zip(tables, positions, strict=True)
        ),
        token_ids=torch.arange(len(tables)) + 100,
        positions=torch.tensor(positions, dtype=torch.long),
        last_rows=torch.arange(len(tables)),
    )


@pytest.mark.parametrize("max_num_seqs", [1, 2, 3, 8, 64, 100, 256])
def test_batches_are_padded_to_a_few_sizes(max_num_seqs):
    sizes = padded_sizes(max_num_seqs)
    assert (sizes[0], sizes[-1]) == (1, max_num_seqs)
    assert list(sizes) == sorted(set(sizes))
    assert all(after <= max(2 * before, before + 16) for before, after in pairwise(sizes))
    assert len(sizes) < 12 + max_num_seqs // 16


def test_inputs_hold_what_the_batch_says_and_padding_touches_nothing():
    inputs = DecodeInputs(MAX_SEQS, MAX_BLOCKS, BLOCK_SIZE, DEVICE)
    inputs.fill(make_batch([[5, 9], [2]], [6, 3]), 4)
    step = inputs.step(4)
    assert inputs.token_ids(4).tolist() == [100, 101, 0, 0]
    assert inputs.positions(4).tolist() == [6, 3, 0, 0]
    assert step.contexts.tolist() == [7, 4, 0, 0]
    assert step.slots.tolist() == [9 * 4 + 2, 2 * 4 + 3, -1, -1]
    assert step.chunk_starts.tolist() == [0, 1, 2, 3, 4]
    assert (step.num_decodes, step.max_chunk, step.max_context) == (4, 1, MAX_BLOCKS * BLOCK_SIZE)


@pytest.mark.parametrize("largest_copy_bytes", [0, decode_inputs.LARGEST_COPY_BYTES])
def test_tables_follow_sequences_that_come_go_and_grow_in_the_same_memory(largest_copy_bytes, monkeypatch):
    monkeypatch.setattr(decode_inputs, "LARGEST_COPY_BYTES", largest_copy_bytes)
    draw = random.Random(0)
    inputs = DecodeInputs(MAX_SEQS, MAX_BLOCKS, BLOCK_SIZE, DEVICE)
    address = inputs.step(1).tables.data_ptr()
    running: list[tuple[list[int], int]] = []
    for _ in range(60):
        running = [(table, start + 1) for table, start in running if draw.random() < 0.9]
        while len(running) < MAX_SEQS and draw.random() < 0.6:
            running.insert(draw.randint(0, len(running)), ([], draw.randrange(12)))
        running = [(table, start) for table, start in running if start < MAX_BLOCKS * BLOCK_SIZE]
        for table, start in running:
            table += [draw.randrange(1000) for _ in range(start // BLOCK_SIZE + 1 - len(table))]
        inputs.fill(make_batch([table for table, _ in running], [start for _, start in running]), MAX_SEQS)
        step = inputs.step(MAX_SEQS)
        assert step.tables.data_ptr() == address
        for row, (table, start) in zip(step.tables.tolist(), running, strict=False):
            assert row[: len(table)] == table
            assert len(table) == start // BLOCK_SIZE + 1
    assert len(running) > 1


def test_a_new_block_does_not_bring_wide_tables_with_it(monkeypatch):
    inputs, copy, copied = DecodeInputs(64, 8192, 16, DEVICE), torch.Tensor.copy_, []

    def copy_and_note(target: torch.Tensor, source: torch.Tensor, **options) -> torch.Tensor:
        copied.append(source.nbytes)
        return copy(target, source, **options)

    tables = [list(range(row, row + 64)) for row in range(64)]
    inputs.fill(make_batch(tables, [1000] * 64), 64)
    for row in (3, 19, 35, 51):
        tables[row].append(99)
    monkeypatch.setattr(torch.Tensor, "copy_", copy_and_note)
    inputs.fill(make_batch(tables, [1001] * 64), 64)
    assert sum(copied) < 4096
    assert [row[: len(table)] for row, table in zip(inputs.step(64).tables.tolist(), tables, strict=True)] == tables


def test_what_was_laid_out_before_its_tokens_and_a_new_block_were_there_is_the_same_memory_in_the_end():
    tables, positions = [[5, 9], [2]], [6, 3]
    ahead, plain, other = (DecodeInputs(MAX_SEQS, MAX_BLOCKS, BLOCK_SIZE, DEVICE) for _ in range(3))
    for inputs in (ahead, plain, other):
        inputs.fill(make_batch([*tables, [7]], [*positions, 1]), 4)
    following = make_batch(tables, [7, 4])
    ahead.lay_out(following, 2)
    other.lay_out(make_batch([[11], *tables], [2, 7, 4]), 4)  # and then it is not that one
    tables[1].append(3)
    following.token_ids[:] = torch.tensor([55, 66])
    for inputs in (ahead, plain, other):
        inputs.fill(following, 2)
        step = inputs.step(2)
        assert inputs.token_ids(2).tolist() == [55, 66]
        assert inputs.positions(2).tolist() == [7, 4]
        assert step.contexts.tolist() == [8, 5]
        assert step.slots.tolist() == [9 * 4 + 3, 3 * 4]
        assert [row[:2] for row in step.tables.tolist()] == tables


def test_a_graph_is_recorded_for_each_size_and_the_least_that_holds_a_batch_runs():
    inputs, computed = DecodeInputs(MAX_SEQS, MAX_BLOCKS, BLOCK_SIZE, torch.device("cpu")), []

    def compute(inputs: DecodeInputs, size: int) -> torch.Tensor:
        computed.append(size)
        return inputs.token_ids(size)[:, None].float()

    graphs = DecodeGraphs(inputs, compute, MAX_SEQS)
    sizes = list(graphs.sizes)
    for count in (1, 3, 4, 5, 12):
        batch = make_batch([[row] for row in range(count)], [0] * count)
        assert graphs.takes(batch)
        assert graphs.run(batch)[:count].flatten().tolist() == batch.token_ids.tolist()
        assert computed[-1] == min(size for size in sizes if size >= count)
    assert not graphs.takes(make_batch([[0]] * 13, [0] * 13))
    chunk = Batch(
        spans=(Span(block_table=[0], start=0, num_tokens=2),),
        token_ids=torch.zeros(2, dtype=torch.long),
        positions=torch.arange(2),
        last_rows=torch.tensor([1]),
    )
    assert not graphs.takes(chunk)


def test_graphs_are_recorded_on_one_stream_of_their_own_device(monkeypatch):
    made, recorded = [], []

    class Inputs:
        def token_ids(self, size: int) -> SimpleNamespace:
            return SimpleNamespace(device=torch.device("cuda", 1))

    class Graph:
        def pool(self) -> str:
            return "pool"

        def replay(self) -> None:
            pass

    def make_stream(device: torch.device) -> str:
        made.append(device)
        return "stream"

    def record(graph: Graph, *, pool: str | None, stream: str) -> nullcontext:
        recorded.append((pool, stream))
        return nullcontext()

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "Stream", make_stream)
    monkeypatch.setattr(torch.cuda, "graph", record)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    DecodeGraphs(Inputs(), lambda inputs, size: torch.zeros(size, 3), 2)
    assert made == [torch.device("cuda", 1)]
    assert recorded == [(None, "stream"), ("pool", "stream")]


def test_a_step_that_does_not_fit_names_its_requests_and_the_next_one_runs():
    runner, sequence = make_runner(), make_sequence(5, max_tokens=2)
    engine, compute = make_engine(runner), runner.compute

    def out_of_memory(batch: Batch) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    engine.scheduler.add(sequence)
    output = engine.scheduler.schedule()
    runner.compute = out_of_memory
    with pytest.raises(OutOfDeviceMemory) as error:
        runner.run(output)
    assert error.value.request_ids == (sequence.request_id,)
    runner.compute = compute
    engine.scheduler.update(output, runner.run(output))
    assert len(sequence.output_token_ids) == 1
