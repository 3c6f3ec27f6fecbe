"""A machine that takes turns with sequences that all decode: those that come out go in again, one token longer.

What the machine does is what it does with steps one by one. Sequences and blocks follow when somebody looks.
"""

from collections import deque
from collections.abc import Iterable
from collections.abc import Sequence as List

from cluster.engine.block_manager import BlockManager
from cluster.engine.scheduler_output import ScheduledSequence, SchedulerOutput
from cluster.instance.step_times import StepTimes
from cluster.latency.step_shape import StepShape
from deploy.simulator.client import Counted
from deploy.simulator.lane import Lane
from deploy.simulator.recorder import Recorder
from deploy.simulator.report import InstanceUse


class Carousel:
    """`waiting` for the first stage, `under_way` with what they take there, and `out` to go in again."""

    def __init__(
        self,
        *,
        blocks: BlockManager,
        message_s: float,
        times: StepTimes,
        use: InstanceUse,
        recorder: Recorder,
        counted: Counted,
    ) -> None:
        self.lanes: dict[str, Lane] = {}
        self.waiting: deque[Lane] = deque()
        self.under_way: deque[tuple[list[Lane], float]] = deque()
        self.out: list[Lane] = []
        self._blocks, self._message_s = blocks, message_s
        self._times, self._use, self._recorder, self._counted = times, use, recorder, counted
        self._num_ahead = 0  # tokens that sequences do not have yet
        self._is_peak_due = False  # a batch was planned since it was seen how many blocks are taken

    @property
    def has_room(self) -> bool:
        """For a token more of each, whatever they have taken meanwhile."""
        needed = self._num_ahead // self._blocks.block_size + 2 * len(self.lanes)
        return needed < self._blocks.num_free_blocks

    def enter(self, lanes: Iterable[Lane]) -> None:
        """Who is new, and then who has come out."""
        for lane in lanes:
            self.lanes[lane.sequence.request_id] = lane
            self.waiting.append(lane)
            self._is_peak_due = True
        if self.out:
            self.waiting += self.out
            self.out = []
            self._is_peak_due = True

    def take(self, most: int | None) -> StepShape | None:
        """The next batch: of so much context at most, but one at least."""
        waiting, context = self.waiting, 0
        if not waiting:
            return None
        batch: list[Lane] = []
        for lane in waiting:
            with_it = context + lane.context
            if most is not None and batch and with_it > most:
                break
            context = with_it
            batch.append(lane)
        if len(batch) == len(waiting):
            waiting.clear()
        else:
            for _ in batch:
                waiting.popleft()
        self.under_way.append((batch, 0.0))
        return StepShape(0, 0.0, len(batch), context)

    def takes(self, busy_s: float) -> None:
        """The batch that was taken last, in the first stage."""
        self.under_way[-1] = self.under_way[-1][0], busy_s

    def come_out(self, now_s: float) -> list[Lane]:
        """Those whose last token this is: it is for others to make."""
        batch, busy_s = self.under_way.popleft()
        use = self._use
        use.busy_s += busy_s
        use.num_steps += 1
        use.num_decode_tokens += len(batch)
        self._times.decoded(now_s - (now_s - busy_s))
        ending: list[Lane] = []
        heard_s = now_s + self._message_s
        since_s, num_since = heard_s, 0
        out = self.out
        for lane in batch:
            if lane.num_left == 1:
                ending.append(lane)
                continue
            lane.num_left -= 1
            lane.num_ahead += 1
            lane.context += 1
            client = lane.client
            last_s = client.last_s
            if last_s != since_s:
                if num_since:
                    self._recorder.waited(heard_s - since_s, num_since)
                since_s, num_since = last_s, 0
            num_since += 1
            if client.num_tokens == 1:
                client.second_s = heard_s
            client.num_tokens += 1
            client.last_s = heard_s
            out.append(lane)
        if num_since:
            self._recorder.waited(heard_s - since_s, num_since)
        num_here = len(batch) - len(ending)
        self._num_ahead += num_here
        self._counted.num_untold += num_here
        return ending

    def catch_up(self, ending: List[Lane] = ()) -> None:
        """As if every step had been made by itself. `ending` have come out, and their last step is still to be made."""
        for lane in self.out:
            lane.catch_up(self._blocks, is_in_step=False)
        for lanes in (self.waiting, ending, *(batch for batch, _ in self.under_way)):
            for lane in lanes:
                lane.catch_up(self._blocks, is_in_step=True)
        self._num_ahead = 0
        if self._is_peak_due:
            self._is_peak_due = False
            used = 1.0 - self._blocks.num_free_blocks / self._blocks.num_blocks
            self._use.peak_kv_use = max(self._use.peak_kv_use, used)

    def forget(self, lanes: Iterable[Lane]) -> None:
        for lane in lanes:
            del self.lanes[lane.sequence.request_id]


def step_of(lanes: Iterable[Lane]) -> SchedulerOutput:
    """The step that these are in, as a scheduler would have put it."""
    return SchedulerOutput(scheduled=tuple(map(entry_of, lanes)))


def entry_of(lane: Lane) -> ScheduledSequence:
    sequence = lane.sequence
    return ScheduledSequence(sequence=sequence, start=sequence.num_computed_tokens, num_tokens=1, samples=True)
