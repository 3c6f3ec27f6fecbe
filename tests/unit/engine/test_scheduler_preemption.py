import pytest

from cluster.engine.sequence import Sequence, SequenceStatus
from tests.unit.engine.factories import (
    BLOCK_SIZE,
    assert_all_free,
    expected_output,
    make_engine,
    make_scheduler,
    make_sequence,
    run_to_end,
)

pytestmark = pytest.mark.unit


def preempted_by(engine_steps: int, *sequences: Sequence, num_blocks: int) -> list[str]:
    engine = make_engine(make_scheduler(num_blocks))
    for sequence in sequences:
        engine.scheduler.add(sequence)
    names = []
    for _ in range(engine_steps):
        output = engine.scheduler.schedule()
        names += [sequence.request_id for sequence in output.preempted]
        engine.scheduler.update(output, engine.runner.run(output))
        engine.scheduler.check_integrity()
    return names


def test_the_latest_arrival_gives_way() -> None:
    early, late = make_sequence("early", 4, arrival_time_s=1.0), make_sequence("late", 4, arrival_time_s=2.0)
    assert preempted_by(6, late, early, num_blocks=3) == ["late"]
    assert late.status is SequenceStatus.PREEMPTED
    assert late.num_computed_tokens == 0


def test_the_lowest_priority_gives_way_whenever_it_came() -> None:
    low, high = make_sequence("low", 4, arrival_time_s=1.0), make_sequence("high", 4, arrival_time_s=2.0, priority=1)
    assert preempted_by(6, low, high, num_blocks=3) == ["low"]


def test_a_lesser_sequence_stalls_rather_than_take_from_a_greater() -> None:
    high, low = make_sequence("high", 5, max_tokens=4, priority=1), make_sequence("low", 4, max_tokens=4)
    engine = make_engine(make_scheduler(num_blocks=3))
    engine.scheduler.add(high)
    engine.scheduler.add(low)
    engine.step()
    assert [entry.sequence for entry in engine.scheduler.schedule().scheduled] == [high]
    assert low.status is SequenceStatus.RUNNING
    assert len(low.block_table) == 1
    run_to_end(engine)
    assert engine.runner.num_computed_tokens == high.num_tokens + low.num_tokens - 2  # nothing was computed twice


def test_only_as_many_give_way_as_it_takes() -> None:
    sequences = [make_sequence(name, 4, arrival_time_s=index) for index, name in enumerate("abcd")]
    assert preempted_by(2, *sequences, num_blocks=6) == ["d"]


def test_nobody_is_admitted_in_a_step_that_preempts() -> None:
    engine = make_engine(make_scheduler(num_blocks=5))
    for index, (name, num_tokens) in enumerate({"a": 4, "b": 4, "c": 7}.items()):
        engine.scheduler.add(make_sequence(name, num_tokens, arrival_time_s=index))
    engine.step()
    engine.scheduler.add(make_sequence("d", 1, priority=9))
    output = engine.scheduler.schedule()
    assert [sequence.request_id for sequence in output.preempted] == ["c"]
    assert engine.scheduler.block_manager.num_free_blocks == 1
    assert "d" not in [entry.sequence.request_id for entry in output.scheduled]


def test_the_preempted_recompute_and_yield_the_same_tokens() -> None:
    engine = make_engine(make_scheduler(num_blocks=7, enable_prefix_caching=False))
    sequences = [make_sequence(name, 6, max_tokens=16) for name in "abc"]
    for sequence in sequences:
        engine.scheduler.add(sequence)
    run_to_end(engine)
    assert [sequence.output_token_ids for sequence in sequences] == [expected_output(s) for s in sequences]
    assert engine.runner.num_computed_tokens > sum(sequence.num_tokens - 1 for sequence in sequences)
    assert_all_free(engine.scheduler)


def test_preemption_leaves_the_number_of_cached_tokens_as_it_was_first_found() -> None:
    engine = make_engine(make_scheduler(num_blocks=5))
    first, second = make_sequence("first", 8, max_tokens=9), make_sequence("second", 8, max_tokens=9)
    engine.scheduler.add(first)
    engine.scheduler.add(second)
    run_to_end(engine)
    assert (first.num_cached_tokens, second.num_cached_tokens) == (0, 0)


def test_what_the_preempted_had_sealed_is_found_again_while_it_is_cached() -> None:
    engine = make_engine(make_scheduler(num_blocks=5))
    first, second = make_sequence("first", BLOCK_SIZE, max_tokens=9), make_sequence("second", 11, max_tokens=3)
    engine.scheduler.add(first)
    engine.scheduler.add(second)
    run_to_end(engine)
    recomputed = engine.runner.num_computed_tokens - (first.num_tokens - 1) - (second.num_tokens - 1)
    assert 0 < recomputed < second.num_prompt_tokens
    assert second.output_token_ids == expected_output(second)
