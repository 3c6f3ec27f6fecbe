import pytest

from cluster.engine.block_hash import hash_blocks
from cluster.engine.engine import Engine
from cluster.engine.sequence import Sequence, SequenceStatus
from tests.unit.engine.factories import (
    BLOCK_SIZE,
    assert_all_free,
    expected_output,
    kv_chain,
    make_engine,
    make_scheduler,
    make_sequence,
    run_to_end,
)

pytestmark = pytest.mark.unit

PROMPT = list(range(2 * BLOCK_SIZE + 1))


def blank(request_id: str = "moved") -> Sequence:
    """What a receiver knows of a request before its baton arrives."""
    return make_sequence(request_id, 0)


def arrive(engine: Engine, sequence: Sequence, first_block: int, prompt: list[int] = PROMPT) -> None:
    """The peer's KV, its tokens and the baton: the prompt is computed and its first token drawn."""
    sequence.prompt_token_ids = tuple(prompt)
    sequence.output_token_ids = expected_output(make_sequence(prompt=prompt, max_tokens=1))
    sequence.num_computed_tokens = len(prompt)
    engine.runner.write(sequence, kv_chain(prompt), first_block * BLOCK_SIZE)
    engine.scheduler.activate(sequence.request_id)


def test_the_frozen_keep_their_blocks_and_do_not_run() -> None:
    engine = make_engine()
    sequence = make_sequence()
    engine.scheduler.add(sequence)
    engine.step()
    table = list(sequence.block_table)
    engine.scheduler.freeze("a")
    assert not engine.scheduler.has_work
    assert engine.scheduler.schedule().scheduled == ()
    assert (sequence.block_table, engine.scheduler.num_running) == (table, 1)
    engine.scheduler.thaw("a")
    run_to_end(engine)
    assert sequence.output_token_ids == expected_output(sequence)


def test_the_frozen_are_not_preempted_even_when_others_stall() -> None:
    engine = make_engine(make_scheduler(num_blocks=2))
    scheduler, frozen, other = engine.scheduler, make_sequence("frozen", 4), make_sequence("other", 4, priority=1)
    scheduler.add(frozen)
    scheduler.add(other)
    engine.step()
    scheduler.freeze("frozen")
    assert scheduler.schedule().scheduled == ()
    assert not scheduler.has_work  # a step would change nothing
    scheduler.remove("frozen", SequenceStatus.FINISHED_ABORTED)
    assert scheduler.has_work
    run_to_end(engine)
    assert other.output_token_ids == expected_output(other, 2 * BLOCK_SIZE + 1)


def test_the_frozen_do_not_expire_before_they_thaw() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_sequence("a", deadline_s=1.0))
    scheduler.freeze("a")
    assert scheduler.expire(2.0) == []
    scheduler.thaw("a")
    assert len(scheduler.expire(2.0)) == 1


def test_a_waiting_sequence_can_be_frozen_and_goes_back_to_its_turn() -> None:
    engine = make_engine(make_scheduler(max_num_seqs=1))
    for index, name in enumerate("ab"):
        engine.scheduler.add(make_sequence(name, arrival_time_s=index))
    engine.scheduler.freeze("a")
    assert engine.scheduler.num_waiting == 1
    engine.scheduler.thaw("a")
    [entry] = engine.scheduler.schedule().scheduled
    assert entry.sequence.request_id == "a"


def test_who_is_not_frozen_has_nothing_to_thaw() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_sequence("a"))
    scheduler.thaw("a")
    scheduler.thaw("unknown")
    scheduler.check_integrity()
    with pytest.raises(KeyError):
        scheduler.freeze("unknown")


def test_freezing_twice_is_freezing_once() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_sequence("a"))
    scheduler.freeze("a")
    scheduler.freeze("a")
    scheduler.check_integrity()


def test_a_token_of_the_step_in_flight_still_reaches_who_was_frozen_meanwhile() -> None:
    engine = make_engine()
    sequence = make_sequence()
    engine.scheduler.add(sequence)
    output = engine.scheduler.schedule()
    engine.scheduler.freeze("a")
    assert engine.scheduler.update(output, engine.runner.run(output)).tokens == ((sequence, 0),)


def test_a_sequence_that_arrives_with_its_kv_computes_only_what_is_new() -> None:
    engine = make_engine()
    moved = blank()
    assert engine.scheduler.reserve(moved, len(PROMPT) + 1, hash_blocks(PROMPT, BLOCK_SIZE)) == 0
    assert moved.status is SequenceStatus.WAITING_FOR_REMOTE_KVS
    assert engine.scheduler.num_reserved_blocks == 3
    assert not engine.scheduler.has_work
    arrive(engine, moved, first_block=0)
    assert engine.scheduler.num_reserved_blocks == 0
    run_to_end(engine)
    assert engine.runner.num_computed_tokens == moved.num_output_tokens - 1
    assert moved.output_token_ids == expected_output(moved)
    assert_all_free(engine.scheduler)


def test_a_reservation_names_the_leading_blocks_that_need_not_come() -> None:
    engine = make_engine()
    engine.scheduler.add(make_sequence("before", [*PROMPT[: BLOCK_SIZE + 2], 99], max_tokens=1))
    run_to_end(engine)
    moved = blank()
    assert engine.scheduler.reserve(moved, len(PROMPT) + 1, hash_blocks(PROMPT, BLOCK_SIZE)) == 1
    arrive(engine, moved, first_block=1)
    run_to_end(engine)
    assert moved.output_token_ids == expected_output(moved)


def test_blocks_a_reservation_counts_on_are_not_evicted() -> None:
    engine = make_engine(make_scheduler(num_blocks=6))
    engine.scheduler.add(make_sequence("before", PROMPT, max_tokens=1))
    run_to_end(engine)
    moved = blank()
    assert engine.scheduler.reserve(moved, len(PROMPT) + 1, hash_blocks(PROMPT, BLOCK_SIZE)) == 2
    engine.scheduler.add(make_sequence("crowd", 3 * BLOCK_SIZE, max_tokens=1))
    run_to_end(engine)
    arrive(engine, moved, first_block=2)
    run_to_end(engine)
    assert moved.output_token_ids == expected_output(moved)


def test_blocks_that_arrived_are_found_by_others_only_once_activated() -> None:
    engine = make_engine()
    moved = blank()
    engine.scheduler.reserve(moved, len(PROMPT) + 1, hash_blocks(PROMPT, BLOCK_SIZE))
    hashes = hash_blocks(PROMPT, BLOCK_SIZE)
    assert engine.scheduler.block_manager.find_cached(hashes) == []
    arrive(engine, moved, first_block=0)
    assert engine.scheduler.block_manager.find_cached(hashes) == moved.block_table[:2]


def test_a_reservation_given_up_leaves_nothing_behind() -> None:
    engine = make_engine()
    engine.scheduler.reserve(blank(), len(PROMPT) + 1, hash_blocks(PROMPT, BLOCK_SIZE))
    engine.scheduler.remove("moved", SequenceStatus.FINISHED_ABORTED)
    assert engine.scheduler.block_manager.find_cached(hash_blocks(PROMPT, BLOCK_SIZE)) == []
    assert_all_free(engine.scheduler)


def test_no_room_above_the_watermark_or_no_seat_is_none_and_changes_nothing() -> None:
    engine = make_engine(make_scheduler(num_blocks=6, watermark_blocks=2, max_num_seqs=2))
    engine.scheduler.add(make_sequence("a", 6))
    engine.step()
    assert engine.scheduler.reserve(blank(), 3 * BLOCK_SIZE, []) is None
    assert "moved" not in engine.scheduler.sequences
    assert engine.scheduler.reserve(blank("fits"), 2 * BLOCK_SIZE, []) == 0
    assert engine.scheduler.reserve(blank("seatless"), 1, []) is None
    engine.scheduler.check_integrity()


def test_who_was_activated_runs_ahead_of_the_waiting() -> None:
    engine = make_engine(make_scheduler(max_num_seqs=1))
    moved = blank()
    engine.scheduler.reserve(moved, len(PROMPT) + 1, [])
    engine.scheduler.add(make_sequence("waiting", priority=9))
    arrive(engine, moved, first_block=0)
    assert [entry.sequence for entry in engine.scheduler.schedule().scheduled] == [moved]


@pytest.mark.parametrize("num_computed_tokens", [3, 10, 99])
def test_kv_that_does_not_fit_the_tokens_is_refused(num_computed_tokens: int) -> None:
    engine = make_engine()
    engine.scheduler.add(make_sequence("before", PROMPT, max_tokens=1))
    run_to_end(engine)
    moved = blank()
    assert engine.scheduler.reserve(moved, len(PROMPT), hash_blocks(PROMPT, BLOCK_SIZE)) == 2
    moved.prompt_token_ids = tuple(PROMPT[:-1])
    moved.output_token_ids = [1]
    moved.num_computed_tokens = num_computed_tokens
    with pytest.raises(ValueError, match=f"num_computed_tokens {num_computed_tokens} is not from 8 to 8"):
        engine.scheduler.activate("moved")
    assert moved.status is SequenceStatus.WAITING_FOR_REMOTE_KVS


def test_only_the_reserved_are_activated_and_they_cannot_be_frozen() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_sequence("a"))
    with pytest.raises(KeyError):
        scheduler.activate("a")
    scheduler.reserve(blank(), 4, [])
    with pytest.raises(ValueError, match="WAITING_FOR_REMOTE_KVS"):
        scheduler.freeze("moved")


def test_the_deadline_of_who_arrives_counts_from_activation() -> None:
    engine = make_engine()
    moved = blank()
    moved.deadline_s = 1.0
    engine.scheduler.reserve(moved, len(PROMPT) + 1, [])
    assert engine.scheduler.expire(2.0) == []
    arrive(engine, moved, first_block=0)
    assert engine.scheduler.expire(2.0) == [moved]


@pytest.mark.parametrize("let_go", ["remove", "freeze"])
def test_whoever_waits_behind_a_blocked_head_has_work_when_it_is_gone(let_go: str) -> None:
    engine = make_engine(make_scheduler(num_blocks=3))
    scheduler, small = engine.scheduler, make_sequence("small", 3, max_tokens=1)
    scheduler.reserve(blank(), 2 * BLOCK_SIZE, [])
    scheduler.add(make_sequence("head", 7))
    scheduler.add(small)
    engine.step()
    assert not scheduler.has_work
    if let_go == "remove":
        scheduler.remove("head", SequenceStatus.FINISHED_ABORTED)
    else:
        scheduler.freeze("head")
    assert scheduler.has_work
    run_to_end(engine)
    assert small.output_token_ids == expected_output(small)


def test_whoever_waits_for_pinned_blocks_has_work_again_when_they_are_unpinned() -> None:
    engine = make_engine(make_scheduler(num_blocks=2))
    scheduler, sent = engine.scheduler, make_sequence("sent", 7)
    scheduler.add(sent)
    engine.step()
    on_a_link = list(sent.block_table)
    scheduler.block_manager.pin(on_a_link)
    scheduler.remove("sent", SequenceStatus.FINISHED_ABORTED)
    scheduler.add(make_sequence("next", 7, max_tokens=1))
    engine.step()
    assert not scheduler.has_work
    scheduler.block_manager.unpin(on_a_link)
    assert scheduler.has_work
    run_to_end(engine)
    assert_all_free(scheduler)
