import pytest

from cluster.engine.scheduler import Scheduler, SchedulerConfig
from cluster.engine.scheduler_output import SampledToken, SchedulerOutput
from cluster.engine.sequence import SequenceStatus
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


def chunks(output: SchedulerOutput) -> dict[str, tuple[int, int, bool]]:
    return {entry.sequence.request_id: (entry.start, entry.num_tokens, entry.samples) for entry in output.scheduled}


def step(scheduler: Scheduler, token_id: int = 7) -> dict[str, tuple[int, int, bool]]:
    output = scheduler.schedule()
    scheduler.update(output, [SampledToken(token_id=token_id) for entry in output.scheduled if entry.samples])
    scheduler.check_integrity()
    return chunks(output)


def test_a_sequence_runs_from_prompt_to_last_token() -> None:
    engine = make_engine()
    sequence = make_sequence(prompt=6, max_tokens=5)
    engine.scheduler.add(sequence)
    run_to_end(engine)
    assert sequence.output_token_ids == expected_output(sequence)
    assert sequence.status is SequenceStatus.FINISHED_LENGTH_CAPPED
    assert_all_free(engine.scheduler)


def test_a_step_reports_tokens_sealed_blocks_and_who_finished() -> None:
    engine = make_engine()
    sequence = make_sequence(prompt=2 * BLOCK_SIZE + 1, max_tokens=2)
    engine.scheduler.add(sequence)
    first = engine.step()
    assert first.tokens == ((sequence, 0),)
    [sealed] = first.sealed
    assert (sealed.sequence, sealed.first_block) == (sequence, 0)
    assert list(sealed.block_ids) == sequence.block_table[:2]
    assert first.finished == ()
    second = engine.step()
    assert second.tokens == ((sequence, 1),)
    assert second.finished == (sequence,)
    assert sequence.block_table == []


def test_a_long_prompt_is_computed_in_chunks_and_samples_with_the_last() -> None:
    scheduler = make_scheduler(max_num_batched_tokens=8)
    scheduler.add(make_sequence("a", 18))
    assert step(scheduler) == {"a": (0, 8, False)}
    assert step(scheduler) == {"a": (8, 8, False)}
    assert step(scheduler) == {"a": (16, 2, True)}
    assert step(scheduler) == {"a": (18, 1, True)}


def test_one_budget_serves_decodes_and_prefills_together() -> None:
    scheduler = make_scheduler(max_num_batched_tokens=8)
    scheduler.add(make_sequence("a", 5))
    assert step(scheduler) == {"a": (0, 5, True)}
    scheduler.add(make_sequence("b", 12))
    assert step(scheduler) == {"a": (5, 1, True), "b": (0, 7, False)}


def test_a_long_prefill_of_high_priority_stalls_no_decode() -> None:
    scheduler = make_scheduler(max_num_batched_tokens=8)
    scheduler.add(make_sequence("a", 3))
    scheduler.add(make_sequence("b", 3))
    step(scheduler)
    scheduler.add(make_sequence("h", 30, priority=1))
    assert step(scheduler)["h"] == (0, 6, False)
    assert step(scheduler) == {"h": (6, 6, False), "a": (4, 1, True), "b": (4, 1, True)}


def test_the_token_budget_can_change_between_steps() -> None:
    scheduler = make_scheduler(max_num_batched_tokens=8)
    scheduler.add(make_sequence("a", 18))
    scheduler.reconfigure(3, watermark_blocks=0)
    assert step(scheduler) == {"a": (0, 3, False)}
    with pytest.raises(ValueError, match="max_num_batched_tokens is 0"):
        scheduler.reconfigure(0, watermark_blocks=0)


def test_no_more_run_than_there_are_seats() -> None:
    scheduler = make_scheduler(max_num_seqs=2)
    for name in "abc":
        scheduler.add(make_sequence(name, max_tokens=2))
    assert set(step(scheduler)) == {"a", "b"}
    assert (scheduler.num_running, scheduler.num_waiting) == (2, 1)
    step(scheduler)
    assert set(step(scheduler)) == {"c"}


def test_tokens_that_wait_to_be_computed_are_counted() -> None:
    scheduler = make_scheduler(max_num_batched_tokens=8)
    scheduler.add(make_sequence("a", 10))
    scheduler.add(make_sequence("b", 5))
    assert scheduler.num_waiting_tokens == 15
    step(scheduler)
    assert scheduler.num_waiting_tokens == 7


def test_a_common_prefix_is_computed_once() -> None:
    engine = make_engine()
    prompt = list(range(3 * BLOCK_SIZE))
    first, second = make_sequence("first", prompt, max_tokens=1), make_sequence("second", [*prompt, 99])
    engine.scheduler.add(first)
    engine.step()
    engine.scheduler.add(second)
    assert chunks(engine.scheduler.schedule()) == {"second": (3 * BLOCK_SIZE, 1, True)}
    assert (first.num_cached_tokens, second.num_cached_tokens) == (0, 3 * BLOCK_SIZE)


def test_the_last_token_is_computed_even_when_the_whole_prompt_is_cached() -> None:
    engine = make_engine()
    prompt = list(range(2 * BLOCK_SIZE))
    for name in ("first", "second"):
        engine.scheduler.add(make_sequence(name, prompt, max_tokens=1))
        result = engine.step()
    assert result.finished[0].num_cached_tokens == BLOCK_SIZE


def test_admission_keeps_the_watermark_and_growth_may_use_it() -> None:
    scheduler = make_scheduler(num_blocks=6, watermark_blocks=2)
    scheduler.add(make_sequence("a", 2 * BLOCK_SIZE, max_tokens=20))
    step(scheduler)
    scheduler.add(make_sequence("b", 3 * BLOCK_SIZE))
    for _ in range(3 * BLOCK_SIZE):
        assert set(step(scheduler)) == {"a"}
    assert scheduler.block_manager.num_free_blocks < 2


def test_the_largest_that_fits_is_admitted_when_nobody_runs_whatever_the_watermark() -> None:
    engine = make_engine(make_scheduler(num_blocks=4, watermark_blocks=2))
    engine.scheduler.add(make_sequence("a", 4 * BLOCK_SIZE, max_tokens=1))
    run_to_end(engine)
    assert_all_free(engine.scheduler)


def test_nobody_overtakes_the_head_of_the_queue() -> None:
    scheduler = make_scheduler(num_blocks=4)
    scheduler.add(make_sequence("a", 2 * BLOCK_SIZE))
    step(scheduler)
    scheduler.add(make_sequence("big", 3 * BLOCK_SIZE))
    scheduler.add(make_sequence("small", 1))
    assert set(step(scheduler)) == {"a"}


def test_update_refuses_any_other_number_of_tokens() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_sequence())
    output = scheduler.schedule()
    with pytest.raises(ValueError, match="sampled 0 tokens where 1 were due"):
        scheduler.update(output, [])


def test_a_step_that_failed_is_taken_again() -> None:
    """Nothing advances before update(): a runner that raised leaves the sequence as it was."""
    scheduler = make_scheduler()
    scheduler.add(make_sequence("a", 6))
    assert chunks(scheduler.schedule()) == chunks(scheduler.schedule()) == {"a": (0, 6, True)}


@pytest.mark.parametrize("field", ["max_num_seqs", "max_num_batched_tokens", "watermark_blocks", "max_model_len"])
def test_a_config_names_the_field_that_is_too_small(field: str) -> None:
    good = {"max_num_seqs": 1, "max_num_batched_tokens": 1, "watermark_blocks": 0, "max_model_len": 1}
    SchedulerConfig(**good)
    with pytest.raises(ValueError, match=f"{field} is {good[field] - 1}"):
        SchedulerConfig(**good | {field: good[field] - 1})
