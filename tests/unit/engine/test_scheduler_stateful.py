"""Anything, in any order, between any two calls: the scheduler stays whole, tokens stay right, and all comes back."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from cluster.engine.block_hash import hash_blocks
from cluster.engine.scheduler_output import ScheduledSequence, SchedulerOutput
from cluster.engine.sequence import Sequence, SequenceStatus
from tests.unit.engine.factories import (
    BLOCK_SIZE,
    FakeRunner,
    assert_all_free,
    expected_output,
    kv_chain,
    make_scheduler,
    make_sequence,
    next_token,
)

pytestmark = pytest.mark.unit

# Two tokens only, so that prompts often share blocks.
prompts = st.lists(st.integers(0, 1), min_size=1, max_size=20)


def as_launched(entry: ScheduledSequence) -> ScheduledSequence:
    """What a GPU works on, whatever happens to the sequence meanwhile."""
    sequence = entry.sequence
    copy = replace(sequence, block_table=list(sequence.block_table), output_token_ids=list(sequence.output_token_ids))
    return replace(entry, sequence=copy)


class AnyOrder(RuleBasedStateMachine):
    pins = Bundle("pins")

    @initialize(
        num_blocks=st.integers(3, 10),
        max_num_seqs=st.integers(1, 4),
        max_num_batched_tokens=st.integers(1, 12),
        watermark_blocks=st.integers(0, 2),
        max_model_len=st.integers(12, 40),
        enable_prefix_caching=st.booleans(),
    )
    def start(self, num_blocks: int, **options: int) -> None:
        self.scheduler = make_scheduler(num_blocks, **options)
        self.blocks = self.scheduler.block_manager
        self.runner = FakeRunner(self.blocks)
        self.limit = min(options["max_model_len"], self.blocks.num_tokens + 1)
        self.prompts_to_come: dict[str, list[int]] = {}
        self.frozen: set[str] = set()
        self.pinned: list[list[int]] = []
        self.in_flight: SchedulerOutput | None = None
        self.num_requests = 0
        self.now_s = 0.0

    def new_sequence(self, prompt: list[int], **options: int) -> Sequence:
        self.num_requests += 1
        return make_sequence(f"r{self.num_requests}", prompt, arrival_time_s=self.now_s, **options)

    @rule(prompt=prompts, max_tokens=st.integers(1, 20), priority=st.integers(0, 1), time_left_s=st.integers(1, 30))
    def add(self, prompt: list[int], max_tokens: int, priority: int, time_left_s: int) -> None:
        sequence = self.new_sequence(prompt, max_tokens=max_tokens, priority=priority, stop_token_ids=[7])
        sequence.deadline_s = self.now_s + time_left_s if time_left_s < 20 else None
        if self.scheduler.can_ever_hold(len(prompt)):
            self.scheduler.add(sequence)
        else:
            with pytest.raises(ValueError, match="num_tokens"):
                self.scheduler.add(sequence)

    @rule()
    def begin_step(self) -> None:
        """If one is in flight, it has failed."""
        self.in_flight = self.scheduler.schedule()
        self.launched = replace(self.in_flight, scheduled=tuple(map(as_launched, self.in_flight.scheduled)))

    @precondition(lambda self: self.in_flight)
    @rule()
    def end_step(self) -> None:
        output, self.in_flight = self.in_flight, None
        result = self.scheduler.update(output, self.runner.run(self.launched))
        for sequence in result.finished:
            assert sequence.output_token_ids == expected_output(sequence, self.limit)
            self.frozen.discard(sequence.request_id)

    @rule()
    def step(self) -> None:
        self.begin_step()
        self.end_step()

    @precondition(lambda self: self.scheduler.sequences)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        request_id = data.draw(st.sampled_from(sorted(self.scheduler.sequences)))
        self.scheduler.remove(request_id, SequenceStatus.FINISHED_ABORTED)
        self.prompts_to_come.pop(request_id, None)
        self.frozen.discard(request_id)

    @precondition(lambda self: self.scheduler.sequences.keys() - self.prompts_to_come)
    @rule(data=st.data())
    def freeze_or_thaw(self, data: st.DataObject) -> None:
        request_id = data.draw(st.sampled_from(sorted(self.scheduler.sequences.keys() - self.prompts_to_come)))
        (self.scheduler.thaw if request_id in self.frozen else self.scheduler.freeze)(request_id)
        self.frozen ^= {request_id}

    @rule(prompt=prompts)
    def reserve(self, prompt: list[int]) -> None:
        if self.scheduler.can_ever_hold(len(prompt) + 1):
            sequence = self.new_sequence([], max_tokens=12)
            hashes = hash_blocks(prompt, BLOCK_SIZE)
            num_free_blocks = self.blocks.num_free_blocks
            if self.scheduler.reserve(sequence, len(prompt) + 1, hashes) is None:
                assert self.blocks.num_free_blocks == num_free_blocks
            else:
                self.prompts_to_come[sequence.request_id] = prompt

    @precondition(lambda self: self.prompts_to_come)
    @rule(data=st.data())
    def activate(self, data: st.DataObject) -> None:
        request_id = data.draw(st.sampled_from(sorted(self.prompts_to_come)))
        prompt, sequence = self.prompts_to_come.pop(request_id), self.scheduler.sequences[request_id]
        chain = kv_chain(prompt)
        self.runner.write(sequence, chain, sequence.num_computed_tokens)  # what was not cached here
        sequence.prompt_token_ids = tuple(prompt)
        sequence.output_token_ids = [next_token(chain)]
        sequence.num_computed_tokens = len(prompt)
        self.scheduler.activate(request_id)

    @rule(seconds=st.integers(1, 5))
    def expire(self, seconds: int) -> None:
        self.now_s += seconds
        for sequence in self.scheduler.expire(self.now_s):
            assert sequence.deadline_s <= self.now_s
            assert sequence.request_id not in self.frozen

    @precondition(lambda self: any(s.block_table for s in self.scheduler.sequences.values()))
    @rule(target=pins, data=st.data())
    def pin(self, data: st.DataObject) -> list[int]:
        tables = [sequence.block_table for sequence in self.scheduler.sequences.values() if sequence.block_table]
        block_ids = list(data.draw(st.sampled_from(tables)))
        self.blocks.pin(block_ids)
        self.pinned.append(block_ids)
        return block_ids

    @rule(block_ids=consumes(pins))
    def unpin(self, block_ids: list[int]) -> None:
        self.blocks.unpin(block_ids)
        self.pinned.remove(block_ids)

    @invariant()
    def everything_is_somewhere_once(self) -> None:
        self.scheduler.check_integrity()
        assert self.scheduler.num_leaked_blocks == 0

    @invariant()
    def sequences_stand_on_their_own_kv(self) -> None:
        for sequence in self.scheduler.sequences.values():
            num_sealed_tokens = len(sequence.block_hashes) * BLOCK_SIZE
            prompt = self.prompts_to_come.get(sequence.request_id) or sequence.token_ids(0, sequence.num_tokens)
            assert self.runner.read(sequence, num_sealed_tokens) == kv_chain(prompt)[:num_sealed_tokens]

    @invariant()
    def no_work_means_that_a_step_would_do_nothing(self) -> None:
        if not self.in_flight and not self.scheduler.has_work:
            output = self.scheduler.schedule()
            assert output.scheduled == output.preempted == ()

    def teardown(self) -> None:
        """When nothing holds blocks from outside, everything ends, and in bounded time."""
        if not hasattr(self, "scheduler"):
            return
        for block_ids in self.pinned:
            self.blocks.unpin(block_ids)
        for request_id in self.prompts_to_come:
            self.scheduler.remove(request_id, SequenceStatus.FINISHED_ABORTED)
        for request_id in self.frozen:
            self.scheduler.thaw(request_id)
        self.begin_step()
        self.end_step()
        while self.scheduler.sequences:
            assert self.scheduler.has_work
            output = self.scheduler.schedule()
            assert output.scheduled
            self.in_flight = self.launched = output
            self.end_step()
            self.scheduler.check_integrity()
        assert_all_free(self.scheduler)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=100, stateful_step_count=40, suppress_health_check=list(HealthCheck))
