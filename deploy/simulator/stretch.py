"""A stretch of steps that are all alike: the same sequences decode, one token each, and nothing is decided.

Its times are worked out at once; sequences, blocks and clients follow when somebody looks, all steps that have passed
in one go. What comes of it is what comes of the steps one by one: the same times, the same tokens, as many blocks.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence as List

import numpy as np

from cluster.engine.block_manager import BlockManager
from cluster.engine.scheduler_output import SchedulerOutput
from cluster.instance.step_times import StepTimes
from deploy.simulator.carousel import step_of
from deploy.simulator.client import Counted
from deploy.simulator.cluster import SimInstance
from deploy.simulator.lane import Lane
from deploy.simulator.recorder import Recorder
from deploy.simulator.report import InstanceUse

# Worked out at once: more are often cut short by what comes.
_MAX_STEPS = 64


class Stretch:
    """`times`, `use`, `recorder` and `counted` are told of what has passed. `ends_s`: of the steps, so far as known."""

    def __init__(
        self,
        lanes: list[Lane],
        start_s: float,
        *,
        spec: SimInstance,
        blocks: BlockManager,
        host_step_s: float,
        message_s: float,
        times: StepTimes,
        use: InstanceUse,
        recorder: Recorder,
        counted: Counted,
    ) -> None:
        self.lanes = lanes
        self.start_s = start_s
        self.ends_s: list[float] = []
        self.num_passed = 0  # steps of which everybody knows
        self._num_seen = 0  # steps at whose beginning it was seen how many blocks are taken
        self.is_cut = False
        self.is_at_end = False
        self.is_load_told = False
        self.version = 0
        self._spec, self._blocks, self._block_size = spec, blocks, blocks.block_size
        self._host_step_s, self._message_s = host_step_s, message_s
        self._times, self._use, self._recorder, self._counted = times, use, recorder, counted
        self._context = sum(lane.sequence.num_tokens for lane in lanes)

    # Ahead

    def go_on(self, until_s: float) -> bool:
        """Works out steps up to the first whose end is not before `until_s`. False: not even one can be made."""
        context = self._context + len(self.lanes) * len(self.ends_s)
        num_steps = min(_MAX_STEPS, min(lane.num_left for lane in self.lanes), self.num_with_room)
        if (most := self._spec.max_context_tokens) is not None:
            num_steps = min(num_steps, (most - context) // len(self.lanes) + 1)
        if num_steps < 1:
            return False
        steps_s = self._spec.latency.decode_steps_s(len(self.lanes), context, num_steps)
        if steps_s[0] + self._host_step_s < self._message_s:
            return False  # words of several steps would be under way at once
        start_s = self.ends_s[-1] if self.ends_s else self.start_s
        ends_s = np.cumsum(np.concatenate(([start_s], steps_s + self._host_step_s)))[1:].tolist()
        self.ends_s += ends_s[: bisect_left(ends_s, until_s) + 1]
        self.is_at_end = False
        self.version += 1
        return True

    @property
    def num_with_room(self) -> int:
        """Steps for which there are blocks; few of them are counted too low, so that the last ones are made singly."""
        return (self._blocks.num_free_blocks // len(self.lanes)) * self._block_size

    def cut(self, num_steps: int) -> None:
        """So many are made, and no more."""
        del self.ends_s[num_steps:]
        self.is_cut = True
        self.version += 1

    def num_ended(self, now_s: float, *, has_ended_now: bool) -> int:
        """`has_ended_now`: one that ends at this very moment counts."""
        count = bisect_right(self.ends_s, now_s)
        return count - (count > 0 and not has_ended_now and self.ends_s[count - 1] == now_s)

    @property
    def ending(self) -> list[Lane]:
        """Those whose last token comes with the last step."""
        num_steps = len(self.ends_s) - self.num_passed
        return [lane for lane in self.lanes if lane.num_left == num_steps]

    # What has passed

    def pass_to(self, num_steps: int, *, is_in_step: bool) -> None:
        """`is_in_step`: one more has begun, and has its blocks."""
        count = num_steps - self.num_passed
        self._tell(num_steps)
        self._advance(self.lanes, count, num_steps, is_in_step=is_in_step)
        self._see_peak(num_steps + is_in_step)

    def leave(self, lanes: List[Lane]) -> SchedulerOutput:
        """The last step as these make it, who do so by themselves; the others have passed it."""
        num_steps = len(self.ends_s)
        count = num_steps - self.num_passed
        if lanes:
            self._tell(num_steps - 1)
            self._advance(lanes, count - 1, num_steps - 1, is_in_step=True)
            self.lanes = [lane for lane in self.lanes if lane not in lanes]
            self._use.num_decode_tokens += len(lanes)
        self._tell(num_steps)
        self._advance(self.lanes, count, num_steps, is_in_step=False)
        self._see_peak(num_steps)
        return step_of(lanes)

    def _advance(self, lanes: List[Lane], count: int, num_steps: int, *, is_in_step: bool) -> None:
        """By `count` steps, with which they have made `num_steps`."""
        blocks = self._blocks
        last_s = (self.ends_s[num_steps - 1] if num_steps else self.start_s) + self._message_s
        for lane in lanes:
            sequence = lane.sequence
            if count:
                client = lane.client
                client.num_tokens += count
                client.last_s = last_s
                lane.num_left -= count
                sequence.output_token_ids += lane.own_tokens * count
                sequence.num_computed_tokens += count
            num_computed = sequence.num_computed_tokens
            if num_computed + is_in_step > lane.room or num_computed >= lane.seal_at:
                lane.fit(blocks, num_computed, is_in_step=is_in_step)
        self._counted.num_untold += count * len(lanes)

    def _see_peak(self, num_planned: int) -> None:
        """Of the blocks, as they were when the last of so many steps was planned: before anything came in it."""
        if num_planned > self._num_seen:
            self._num_seen = num_planned
            used = 1.0 - self._blocks.num_free_blocks / self._blocks.num_blocks
            self._use.peak_kv_use = max(self._use.peak_kv_use, used)

    def _tell(self, num_steps: int) -> None:
        """How long the steps since the last time took, to all who are to know; before anybody makes them."""
        first, num_lanes, use = self.num_passed, len(self.lanes), self._use
        if num_steps == first:
            return
        self.num_passed = num_steps
        use.num_steps += num_steps - first
        use.num_decode_tokens += (num_steps - first) * num_lanes
        if not first:
            self._hear_first(self.ends_s[0] + self._message_s)
        began_s = self.ends_s[first - 1] if first else self.start_s
        for at in range(first, num_steps):
            ended_s = self.ends_s[at]
            self._times.decoded(ended_s - began_s)
            use.busy_s += ended_s - began_s
            if at and num_lanes:
                self._recorder.waited(ended_s - began_s, num_lanes)
            began_s = ended_s

    def _hear_first(self, heard_s: float) -> None:
        """Of those that have come to this stretch just now, each has waited for as long as it took to come here."""
        began_s, num_here = self.start_s + self._message_s, 0
        for lane in self.lanes:
            client = lane.client
            if client.num_tokens == 1:
                client.second_s = heard_s
            if client.last_s == began_s:
                num_here += 1
            else:
                self._recorder.waited(heard_s - client.last_s, 1)
        if num_here:
            self._recorder.waited(heard_s - began_s, num_here)

    def num_untold(self, now_s: float, *, has_ended_now: bool) -> int:
        """Beyond what is counted: tokens that clients have heard of since, or would not have heard of yet."""
        return (self.num_heard(now_s, has_ended_now=has_ended_now) - self.num_passed) * len(self.lanes)

    def num_heard(self, now_s: float, *, has_ended_now: bool) -> int:
        """Steps of which clients have heard."""
        if not self._message_s:
            return self.num_ended(now_s, has_ended_now=has_ended_now)
        return bisect_right(self.ends_s, now_s, key=lambda end_s: end_s + self._message_s)
