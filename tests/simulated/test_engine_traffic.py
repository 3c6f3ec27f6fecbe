"""An engine under hours of traffic in a second: bursts, aborts, deadlines, pauses for a handover, from many seeds."""

import random

import pytest

from cluster.engine.engine import Engine
from cluster.engine.sequence import Sequence, SequenceStatus
from tests.unit.engine.factories import (
    assert_all_free,
    expected_output,
    make_engine,
    make_scheduler,
    make_sequence,
    run_to_end,
)

pytestmark = pytest.mark.simulated

PREFIXES = [tuple(range(start, start + 24)) for start in (0, 100, 200)]


def draw_sequence(rng: random.Random, request_id: str, now_s: float) -> Sequence:
    """A third share a system prompt; some are long; a few are urgent or have little time."""
    tail = [rng.randrange(1000, 9999) for _ in range(rng.choice([1, 4, 12, 60]))]
    return make_sequence(
        request_id,
        [*(rng.choice(PREFIXES) if rng.random() < 0.3 else ()), *tail],
        max_tokens=rng.randint(1, 40),
        stop_token_ids=[rng.randrange(50)],
        priority=int(rng.random() < 0.1),
        arrival_time_s=now_s,
        deadline_s=now_s + rng.uniform(5, 200) if rng.random() < 0.2 else None,
    )


def disturb(rng: random.Random, engine: Engine, frozen: list[str]) -> None:
    """An abort, or a handover that comes to nothing."""
    scheduler = engine.scheduler
    if frozen and rng.random() < 0.2:
        scheduler.thaw(frozen.pop())
    if scheduler.sequences and rng.random() < 0.1:
        request_id = rng.choice(list(scheduler.sequences))
        if rng.random() < 0.5:
            scheduler.freeze(request_id)
            frozen.append(request_id)
        else:
            scheduler.remove(request_id, SequenceStatus.FINISHED_ABORTED)


@pytest.mark.parametrize("seed", range(12))
def test_traffic_comes_and_goes_and_leaves_nothing_behind(seed: int) -> None:
    rng = random.Random(seed)
    engine = make_engine(
        make_scheduler(
            num_blocks=rng.choice([26, 40, 80]),
            max_num_seqs=rng.choice([4, 16]),
            max_num_batched_tokens=rng.choice([16, 64]),
            watermark_blocks=rng.choice([0, 4]),
        )
    )
    sequences: list[Sequence] = []
    frozen: list[str] = []
    for now_s in range(400):
        for _ in range(rng.choice([0, 0, 0, 0, 0, 1, 3])):
            sequences.append(draw_sequence(rng, f"r{len(sequences)}", now_s))
            engine.scheduler.add(sequences[-1])
        engine.step()
        disturb(rng, engine, frozen)
        engine.scheduler.expire(now_s)
        engine.scheduler.check_integrity()
    for request_id in frozen:
        engine.scheduler.thaw(request_id)
    run_to_end(engine)
    assert_all_free(engine.scheduler)
    for sequence in sequences:
        expected = expected_output(sequence, engine.scheduler.block_manager.num_tokens + 1)
        if sequence.status is SequenceStatus.FINISHED_ABORTED:
            expected = expected[: sequence.num_output_tokens]
        assert sequence.output_token_ids == expected
    assert sum(s.status is not SequenceStatus.FINISHED_ABORTED for s in sequences) > len(sequences) / 3


def test_a_crowd_far_beyond_memory_makes_steady_progress() -> None:
    """Preemption costs some work, but never so much that the engine computes the same things for ever."""
    engine = make_engine(make_scheduler(num_blocks=30, max_num_seqs=16, enable_prefix_caching=False))
    sequences = [make_sequence(f"r{index}", 8, max_tokens=24) for index in range(60)]
    for sequence in sequences:
        engine.scheduler.add(sequence)
    run_to_end(engine)
    num_useful_tokens = sum(sequence.num_tokens - 1 for sequence in sequences)
    assert num_useful_tokens < engine.runner.num_computed_tokens < 3 * num_useful_tokens
    assert [sequence.output_token_ids for sequence in sequences] == [expected_output(s) for s in sequences]
