import mmap

import pytest
import torch

from cluster.model.kv_cache import KVCache
from cluster.model.saturation import measure_saturation
from tests.unit.model.factories import BLOCK_SIZE, make_engine, make_runner, make_sequence, run

pytestmark = pytest.mark.unit

SHAPE = (3, BLOCK_SIZE, 2, 16)  # num_layers, block_size, num_kv_heads, head_dim


def test_a_block_is_one_contiguous_record_of_the_buffer():
    memory = mmap.mmap(-1, 4 * KVCache.record_bytes_for(*SHAPE, torch.float32))
    cache = KVCache(4, *SHAPE, torch.float32, buffer=memory)
    assert cache.record_bytes == 2 * 3 * BLOCK_SIZE * 2 * 16 * 4
    cache.tensor[2] = 1.5
    records = torch.frombuffer(memory, dtype=torch.float32).view(4, -1)
    assert [bool((record == 1.5).all()) for record in records] == [False, False, True, False]


def test_a_buffer_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="4 blocks need"):
        KVCache(4, *SHAPE, torch.float32, buffer=memoryview(bytearray(100)))


def test_row_indexes_name_block_slot_and_layer():
    cache = KVCache(4, *SHAPE, torch.float32)
    cache.tensor.copy_(torch.arange(cache.tensor.numel()).view(cache.tensor.shape))
    tokens = cache.token_row_index(torch.tensor([3, 1]), torch.tensor([5, 0]))
    blocks = cache.block_row_index(torch.tensor([[2, 0]]))
    for layer in range(3):
        for token, (block, slot) in enumerate([(3, 5), (1, 0)]):
            for kind in (0, 1):
                row = cache.token_rows[layer][tokens[token, kind]]
                assert torch.equal(row, cache.tensor[block, kind, layer, slot].flatten())
        gathered = cache.block_rows[layer][blocks].view(2, 2, -1)
        assert torch.equal(gathered, cache.tensor[[2, 0], :, layer].transpose(0, 1).flatten(2))


def test_a_block_carries_its_tokens_to_another_cache():
    """What a handover relies on: copied records are all that a sequence needs elsewhere."""
    here, there = make_runner(num_blocks=16), make_runner(num_blocks=16)
    moved, stayed = make_sequence(30, max_tokens=20), make_sequence(30, max_tokens=20)
    run(make_engine(here), stayed)

    source = make_engine(here).scheduler
    source.add(moved)
    for _ in range(9):
        output = source.schedule()
        source.update(output, here.run(output))
    state = make_sequence(30, max_tokens=20)
    state.output_token_ids = list(moved.output_token_ids)

    target = make_engine(there).scheduler
    assert target.reserve(make_sequence(3, request_id="other"), 16, ()) == 0  # takes blocks 0 and 1
    assert target.reserve(state, moved.num_computed_tokens, ()) == 0
    there.kv_cache.tensor[state.block_table] = here.kv_cache.tensor[moved.block_table]
    state.num_computed_tokens = moved.num_computed_tokens
    target.activate(state.request_id)
    while not state.is_finished:
        output = target.schedule()
        assert sum(entry.num_tokens for entry in output.scheduled) == 1
        target.update(output, there.run(output))
    assert state.output_token_ids == stayed.output_token_ids


def test_sampling_is_the_same_after_preemption_as_before():
    def outputs(num_blocks: int) -> tuple[list[list[int]], int]:
        params = {"temperature": 1.0, "top_p": 0.95, "max_tokens": 40}
        sequences = [make_sequence(30, request_id=str(n), seed=n, **params) for n in range(3)]
        num_preemptions = run(make_engine(make_runner(num_blocks=num_blocks)), *sequences)
        return [sequence.output_token_ids for sequence in sequences], num_preemptions

    roomy, none = outputs(64)
    tight, some = outputs(14)
    assert none == 0
    assert some > 0
    assert tight == roomy


def test_saturation_is_a_batch_length_that_the_cache_can_hold():
    assert measure_saturation(make_runner(num_blocks=16)) in {16, 32, 64, 128}
