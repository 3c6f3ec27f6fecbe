"""Steps that are laid out before their tokens are there: never another step than the scheduler's, nor other tokens."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from cluster.engine.scheduler_output import ScheduledSequence, SchedulerOutput
from cluster.model.batch import make_batch
from cluster.model.errors import NonFiniteLogits, OutOfDeviceMemory
from cluster.model.next_step import NextStep
from cluster.model.sampler import Sampling
from tests.unit.model.factories import make_engine, make_runner, make_sequence
from tests.unit.model.stand_in import StandInRunner, run_all

pytestmark = pytest.mark.unit


def make_step(*lengths: int) -> list[ScheduledSequence]:
    """A first step of prompts of these lengths; each has its blocks."""
    return [
        ScheduledSequence(
            sequence=replace(make_sequence(length, request_id=str(n)), block_table=[10 * n + b for b in range(9)]),
            start=0,
            num_tokens=length,
            samples=True,
        )
        for n, length in enumerate(lengths)
    ]


def step_after(step: list[ScheduledSequence]) -> list[ScheduledSequence]:
    for n, entry in enumerate(step):
        entry.sequence.output_token_ids.append(100 + n)
    return [replace(entry, start=entry.start + entry.num_tokens, num_tokens=1) for entry in step]


def test_it_is_what_would_have_been_laid_out_with_the_tokens():
    step = make_step(5, 9, 7, 9)
    for _ in range(3):
        foreseen = NextStep(step)
        step = step_after(step)
        step[2].sequence.block_table.append(77)
        batch, right = foreseen.take(step), make_batch([step[i] for i in foreseen.order])
        assert batch is not None
        assert batch.spans == right.spans
        for name in ("token_ids", "positions", "last_rows"):
            assert getattr(batch, name).tolist() == getattr(right, name).tolist(), name
        assert batch.last_rows.tolist() == [0, 1, 2, 3]


def swapped(step: list[ScheduledSequence]) -> list[ScheduledSequence]:
    return [step[1], step[0], *step[2:]]


def joined(step: list[ScheduledSequence]) -> list[ScheduledSequence]:
    return [*step, *make_step(1)]


def replaced(step: list[ScheduledSequence]) -> list[ScheduledSequence]:
    return [replace(step[0], sequence=replace(step[0].sequence)), *step[1:]]


def recomputed(step: list[ScheduledSequence]) -> list[ScheduledSequence]:
    return [replace(step[0], start=0, num_tokens=step[0].start + 1), *step[1:]]


def moved(step: list[ScheduledSequence]) -> list[ScheduledSequence]:
    step[0].sequence.block_table = list(step[0].sequence.block_table)
    return step


def cut(step: list[ScheduledSequence]) -> list[ScheduledSequence]:
    return [replace(step[0], samples=False), *step[1:]]


@pytest.mark.parametrize("change", [lambda step: step[1:], swapped, joined, replaced, recomputed, moved, cut])
def test_another_step_is_told_from_it(change):
    step = make_step(5, 9, 7)
    foreseen = NextStep(step)
    following = change(step_after(step))
    assert foreseen.take(following) is None
    assert foreseen.shares(following)


def test_it_shares_nothing_with_a_step_of_others():
    assert not NextStep(make_step(5, 9)).shares(make_step(5, 9))


def make_waves(seed: int, **params) -> list[list]:
    """Prompts whose lengths cross blocks at different times, and who arrive, by their numbers, in another order."""
    draw = random.Random(seed)
    arrivals = draw.sample(range(12), 12)
    return [
        [
            make_sequence(
                draw.randint(1, 30),
                request_id=f"{wave}-{n}",
                arrival_time_s=float(arrivals[4 * wave + n]),
                max_tokens=draw.randint(1, 25),
                seed=4 * wave + n,
                **params,
            )
            for n in range(4)
        ]
        for wave in range(3)
    ]


@pytest.mark.parametrize("params", [{}, {"temperature": 0.9, "top_p": 0.8, "logprobs": 2}])
@pytest.mark.parametrize("num_blocks", [128, 14])
@pytest.mark.parametrize("budget", [512, 12])
def test_tokens_are_the_same_whether_the_next_step_is_foreseen_or_not(params, num_blocks, budget):
    plain, ahead = make_runner(num_blocks=num_blocks), StandInRunner.make(num_blocks=num_blocks)
    right = run_all(make_engine(plain, max_num_batched_tokens=budget), *make_waves(1, **params))
    waves = make_waves(1, **params)
    assert run_all(make_engine(ahead, max_num_batched_tokens=budget), *waves) == right
    for sequence in (sequence for wave in waves for sequence in wave if params):
        assert len(sequence.logprobs) == len(sequence.output_token_ids)
        assert all(logprobs.logprob <= logprobs.top[0][1] <= 0.0 for logprobs in sequence.logprobs)
    gap = ahead.host_gap
    assert 0 < gap.num_foreseen < gap.num_steps <= ahead.num_recorded
    assert 0.0 < gap.gap_s < gap.step_s
    assert gap.share == gap.gap_s / gap.step_s


def test_what_is_waited_for_meanwhile_does_not_count_as_the_hosts_gap():
    runner = StandInRunner.make()
    for request_id in ("first", "second"):
        run_all(make_engine(runner), [make_sequence(5, request_id=request_id, max_tokens=3)])
    assert (runner.host_gap.num_steps, runner.host_gap.num_foreseen) == (4, 4)


def test_a_token_that_the_engine_changed_is_the_one_that_is_computed_with():
    """It is read when the step is launched, not kept from when it was drawn."""
    found = []
    for runner in (make_runner(), StandInRunner.make()):
        engine, sequence = make_engine(runner), make_sequence(5, max_tokens=6)
        engine.scheduler.add(sequence)
        engine.step()
        sequence.output_token_ids[-1] = 17
        while engine.scheduler.has_work:
            engine.step()
        found.append(sequence.output_token_ids)
    assert found[0] == found[1]


NO_MEMORY = [
    torch.OutOfMemoryError("Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
]


def failing(error: RuntimeError) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


def test_another_error_in_a_step_is_raised_as_it_is(monkeypatch):
    runner, error = StandInRunner.make(), RuntimeError("CUDA error: an illegal memory access was encountered")
    monkeypatch.setattr(runner, "compute", failing(error))
    engine = make_engine(runner)
    engine.scheduler.add(make_sequence(5))
    with pytest.raises(RuntimeError) as raised:
        engine.step()
    assert raised.value is error


@pytest.mark.parametrize("error", NO_MEMORY, ids=["torch", "cublas", "triton"])
@pytest.mark.parametrize("where", ["launch", "collect"])
def test_a_step_without_memory_names_its_requests_and_the_next_one_runs(where, error, monkeypatch):
    right = run_all(make_engine(make_runner()), make_waves(2)[0])
    runner = StandInRunner.make()
    engine, sequences = make_engine(runner), make_waves(2)[0]
    for sequence in sequences:
        engine.scheduler.add(sequence)
    engine.step()
    output = engine.scheduler.schedule()
    with monkeypatch.context() as patch:
        if where == "launch":
            patch.setattr(runner, "compute", failing(error))
        else:
            runner.launch(output)
            patch.setattr(Sampling, "collect", failing(error))
        with pytest.raises(OutOfDeviceMemory) as given_up:
            runner.launch(output) if where == "launch" else runner.collect()
    assert given_up.value.request_ids == tuple(entry.sequence.request_id for entry in output.scheduled)
    engine.scheduler.update(SchedulerOutput(scheduled=()), ())
    while engine.scheduler.has_work:
        engine.step()
    assert [sequence.output_token_ids for sequence in sequences] == right


def test_logits_that_are_not_finite_name_their_requests_whatever_the_order_of_rows(monkeypatch):
    runner = StandInRunner.make()
    engine = make_engine(runner)
    for length, name in ((3, "short"), (20, "long"), (9, "middle")):
        engine.scheduler.add(make_sequence(length, request_id=name))
    engine.step()
    compute = runner.compute

    def broken(batch):
        logits = compute(batch)
        logits[0] = torch.nan  # the longest context's
        return logits

    monkeypatch.setattr(runner, "compute", broken)
    with pytest.raises(NonFiniteLogits) as error:
        engine.step()
    assert error.value.request_ids == ("long",)
