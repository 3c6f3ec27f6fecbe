"""How fast an instance is, from its own steps: prompts and decoding apart, the latest counting most."""

import pytest

from cluster.engine.scheduler_output import ScheduledSequence, SchedulerOutput
from cluster.instance.step_times import StepTimes
from tests.unit.engine.factories import make_sequence

pytestmark = pytest.mark.unit


def step(times: StepTimes, *num_tokens: int, seconds: float) -> None:
    scheduled = tuple(
        ScheduledSequence(sequence=make_sequence(str(at), range(8)), start=0, num_tokens=count, samples=True)
        for at, count in enumerate(num_tokens)
    )
    times.begin(5.0)
    times.end(SchedulerOutput(scheduled=scheduled), 5.0 + seconds)


def test_nothing_is_known_before_the_first_step() -> None:
    times = StepTimes()
    step(times, seconds=1.0)
    assert (times.prefill_tokens_per_s, times.decode_step_s) == (0.0, 0.0)


def test_steps_with_prompts_tell_of_prefill_and_the_others_of_decode() -> None:
    times = StepTimes()
    step(times, 1, 1, 1, seconds=0.02)
    step(times, 399, 1, seconds=0.1)
    assert times.decode_step_s == pytest.approx(0.02)
    assert times.prefill_tokens_per_s == pytest.approx(4000)


def test_the_latest_count_most() -> None:
    times = StepTimes()
    for seconds in (0.02,) * 50 + (0.04,) * 30:
        step(times, 1, seconds=seconds)
    assert times.decode_step_s == pytest.approx(0.04, rel=0.05)


def test_a_short_prompt_hardly_counts_among_long_ones() -> None:
    times = StepTimes()
    step(times, 2000, seconds=0.25)
    step(times, 2, seconds=0.02)
    assert times.prefill_tokens_per_s > 7000
