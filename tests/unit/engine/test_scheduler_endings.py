import pytest

from cluster.engine.scheduler_output import SampledToken
from cluster.engine.sequence import SequenceStatus, TokenLogprobs
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


def test_a_stop_id_ends_a_sequence_and_is_its_last_token() -> None:
    engine = make_engine()
    free_running = expected_output(make_sequence(max_tokens=20))
    sequence = make_sequence(max_tokens=20, stop_token_ids=[free_running[3]])
    engine.scheduler.add(sequence)
    run_to_end(engine)
    assert sequence.status is SequenceStatus.FINISHED_STOPPED
    assert sequence.output_token_ids == free_running[: free_running.index(free_running[3]) + 1]


def test_max_model_len_ends_a_sequence() -> None:
    engine = make_engine(make_scheduler(max_model_len=10))
    sequence = make_sequence(prompt=6, max_tokens=100)
    engine.scheduler.add(sequence)
    run_to_end(engine)
    assert sequence.status is SequenceStatus.FINISHED_LENGTH_CAPPED
    assert sequence.num_tokens == 10


def test_a_sequence_that_outgrows_all_blocks_is_capped() -> None:
    engine = make_engine(make_scheduler(num_blocks=3))
    sequence = make_sequence(prompt=6, max_tokens=100)
    engine.scheduler.add(sequence)
    run_to_end(engine)
    assert sequence.status is SequenceStatus.FINISHED_LENGTH_CAPPED
    assert sequence.num_tokens == 3 * BLOCK_SIZE + 1  # the last token needs no KV
    assert sequence.output_token_ids == expected_output(sequence, 3 * BLOCK_SIZE + 1)
    assert_all_free(engine.scheduler)


def test_a_sequence_that_can_never_fit_is_refused_with_the_numbers() -> None:
    scheduler = make_scheduler(num_blocks=3)
    with pytest.raises(ValueError, match=r"num_tokens 13 .* capacity is 12"):
        scheduler.add(make_sequence(prompt=13))
    assert not scheduler.can_ever_hold(13)
    assert scheduler.can_ever_hold(12)
    scheduler.add(make_sequence(prompt=12))


def test_a_prompt_as_long_as_the_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"num_tokens 10 .* max_model_len is 10"):
        make_scheduler(max_model_len=10).add(make_sequence(prompt=10))


def test_nothing_to_continue_is_refused() -> None:
    with pytest.raises(ValueError, match="num_tokens 0"):
        make_scheduler().add(make_sequence(prompt=0))


def test_an_id_that_is_here_is_refused() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_sequence("a"))
    with pytest.raises(ValueError, match="'a' is here already"):
        scheduler.add(make_sequence("a"))
    with pytest.raises(ValueError, match="'a' is here already"):
        scheduler.reserve(make_sequence("a"), 4, [])


def test_an_abort_frees_everything_in_any_state() -> None:
    engine = make_engine(make_scheduler(num_blocks=8, max_num_seqs=4))
    scheduler = engine.scheduler
    for name in ("running", "frozen"):
        scheduler.add(make_sequence(name, 5))
    engine.step()
    scheduler.freeze("frozen")
    assert scheduler.reserve(make_sequence("reserved", 5), 6, []) == 0
    scheduler.add(make_sequence("waiting", 20))
    for name in ("running", "frozen", "reserved", "waiting"):
        removed = scheduler.remove(name, SequenceStatus.FINISHED_ABORTED)
        assert removed is not None
        assert removed.status is SequenceStatus.FINISHED_ABORTED
        scheduler.check_integrity()
    assert_all_free(scheduler)
    assert scheduler.remove("running", SequenceStatus.FINISHED_ABORTED) is None


def test_an_abort_between_schedule_and_update_is_passed_over() -> None:
    engine = make_engine()
    scheduler, gone, stays = engine.scheduler, make_sequence("gone"), make_sequence("stays")
    scheduler.add(gone)
    scheduler.add(stays)
    output = scheduler.schedule()
    sampled = engine.runner.run(output)
    scheduler.remove("gone", SequenceStatus.FINISHED_ABORTED)
    scheduler.check_integrity()
    result = scheduler.update(output, sampled)
    assert result.tokens == ((stays, 0),)
    assert gone.output_token_ids == []
    run_to_end(engine)
    assert stays.output_token_ids == expected_output(stays)


def test_an_id_that_comes_back_during_a_step_does_not_get_its_namesakes_token() -> None:
    engine = make_engine()
    scheduler = engine.scheduler
    scheduler.add(make_sequence("a"))
    output = scheduler.schedule()
    sampled = engine.runner.run(output)
    scheduler.remove("a", SequenceStatus.FINISHED_ABORTED)
    again = make_sequence("a", 9)
    scheduler.add(again)
    assert scheduler.update(output, sampled).tokens == ()
    run_to_end(engine)
    assert again.output_token_ids == expected_output(again)


@pytest.mark.parametrize("ends_with", ["update", "schedule"])
def test_blocks_that_a_step_may_still_write_are_given_to_nobody_before_it_is_over(ends_with: str) -> None:
    scheduler = make_scheduler(num_blocks=3)
    scheduler.add(make_sequence("gone", 12))
    output = scheduler.schedule()
    scheduler.remove("gone", SequenceStatus.FINISHED_ABORTED)
    assert scheduler.num_leaked_blocks == 0
    assert scheduler.reserve(make_sequence("new"), 4, []) is None
    if ends_with == "update":
        scheduler.update(output, [SampledToken(token_id=1)])
    else:
        scheduler.schedule()
    assert scheduler.reserve(make_sequence("new"), 4, []) == 0


def test_deadlines_end_the_waiting_and_the_running() -> None:
    engine = make_engine(make_scheduler(max_num_seqs=1))
    scheduler = engine.scheduler
    for name, deadline_s in (("running", 5.0), ("waiting", 4.0), ("patient", None)):
        scheduler.add(make_sequence(name, deadline_s=deadline_s, max_tokens=1000))
    engine.step()
    assert scheduler.expire(3.9) == []
    assert [sequence.request_id for sequence in scheduler.expire(4.0)] == ["waiting"]
    [expired] = scheduler.expire(6.0)
    assert expired.request_id == "running"
    assert expired.status is SequenceStatus.FINISHED_ABORTED
    assert list(scheduler.sequences) == ["patient"]
    assert scheduler.block_manager.num_free_blocks == scheduler.block_manager.num_blocks


def test_a_deadline_dies_with_its_sequence() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_sequence("a", deadline_s=1.0))
    scheduler.remove("a", SequenceStatus.FINISHED_ABORTED)
    scheduler.add(make_sequence("a", deadline_s=9.0))
    assert scheduler.expire(5.0) == []
    assert len(scheduler.expire(9.0)) == 1


def test_logprobs_come_along_with_their_tokens() -> None:
    scheduler, sequence = make_scheduler(), make_sequence()
    scheduler.add(sequence)
    logprobs = TokenLogprobs(-0.5, ((3, -0.5), (4, -1.5)))
    scheduler.update(scheduler.schedule(), [SampledToken(token_id=3, logprobs=logprobs)])
    assert sequence.logprobs == [logprobs]
