"""The same tokens, however they were batched, chunked, cached or preempted."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.engine.factories import (
    assert_all_free,
    expected_output,
    make_engine,
    make_scheduler,
    make_sequence,
    run_to_end,
)

pytestmark = pytest.mark.unit

prompts = st.lists(st.integers(0, 2), min_size=1, max_size=24)
requests = st.lists(st.tuples(prompts, st.integers(1, 24), st.integers(0, 2)), min_size=1, max_size=8)


@settings(max_examples=200)
@given(
    requests=requests,
    num_blocks=st.integers(7, 20),
    max_num_seqs=st.integers(1, 8),
    max_num_batched_tokens=st.integers(1, 32),
    watermark_blocks=st.integers(0, 3),
    enable_prefix_caching=st.booleans(),
    steps_between=st.integers(0, 6),
)
def test_batching_chunks_hits_and_preemption_change_no_token(
    requests: list[tuple[list[int], int, int]], num_blocks: int, steps_between: int, **options: int
) -> None:
    engine = make_engine(make_scheduler(num_blocks, **options))
    sequences = [
        make_sequence(f"r{index}", prompt, max_tokens=max_tokens, priority=priority, arrival_time_s=index)
        for index, (prompt, max_tokens, priority) in enumerate(requests)
    ]
    for sequence in sequences:
        engine.scheduler.add(sequence)
        for _ in range(steps_between):
            engine.step()
    run_to_end(engine)
    limit = engine.scheduler.block_manager.num_tokens + 1
    assert [s.output_token_ids for s in sequences] == [expected_output(s, limit) for s in sequences]
    assert_all_free(engine.scheduler)


def test_the_fake_model_would_show_a_stale_block() -> None:
    engine = make_engine()
    sequence = make_sequence(prompt=6)
    engine.scheduler.add(sequence)
    engine.step()
    engine.runner.slots[sequence.block_table[0] * 4 + 1] += 1
    run_to_end(engine)
    assert sequence.output_token_ids != expected_output(sequence)
