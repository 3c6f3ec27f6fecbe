"""The step loop with a device that computes beside it: what goes out when, and what a failure leaves undone."""

import queue
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from cluster.engine.engine import Engine
from cluster.engine.sampling_params import SamplingParams
from cluster.engine.scheduler_output import SampledToken, SchedulerOutput
from cluster.instance.config import CoreConfig
from cluster.instance.core import InstanceCore
from cluster.instance.effects import Effect, ToFront, ToSource
from cluster.instance.step_loop import StepLoop
from cluster.links.slot_table import SlotTable
from cluster.messages import Dispatch, DispatchRefused, Epoch, Holder, Reserve, SequenceState, StepUpdate, Stop
from cluster.model.errors import OutOfDeviceMemory
from cluster.role import InstanceRole
from tests.simulated.world import FRONT, NoChecksums
from tests.unit.engine.factories import FakeRunner, expected_output, make_scheduler, make_sequence

pytestmark = pytest.mark.unit

SOURCE = Holder("source", 1)
PATIENCE_S = 20.0
PROMPT, NUM_TOKENS = (1, 2, 3), 4


class FakeDevice(FakeRunner):
    """A step is over when it may be; what happens is noted in order."""

    def __init__(self, *args: object, notes: "queue.Queue[str]") -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._notes = notes
        self._may_end = threading.Semaphore(0)
        self._output: SchedulerOutput | None = None
        self.failing: dict[str, BaseException] = {}
        self.launched: list[list[str]] = []

    @property
    def num_launched(self) -> int:
        return len(self.launched)

    def end_step(self) -> None:
        self._may_end.release()

    def launch(self, output: SchedulerOutput) -> None:
        assert self._output is None, "a step is under way"
        self.launched.append([entry.sequence.request_id for entry in output.scheduled])
        self._notes.put(f"launch {self.num_launched}")
        self._fail_at("launch")
        self._output = output

    def collect(self) -> list[SampledToken]:
        output, self._output = self._output, None
        assert output is not None, "nothing is under way"
        assert self._may_end.acquire(timeout=PATIENCE_S)
        self._notes.put(f"tokens {self.num_launched}")
        self._fail_at("collect")
        return super().run(output)

    def run(self, output: SchedulerOutput) -> list[SampledToken]:
        raise AssertionError("the step loop computes in two halves")

    def _fail_at(self, half: str) -> None:
        if error := self.failing.pop(f"{half} {self.num_launched}", None):
            raise error


class Loop:
    def __init__(self) -> None:
        scheduler = make_scheduler(16, max_num_batched_tokens=16, max_num_seqs=4)
        self.notes: queue.Queue[str] = queue.Queue()
        self.device = FakeDevice(scheduler.block_manager, notes=self.notes)
        engine = Engine(scheduler, self.device, self.device)
        slots = SlotTable(lambda reservation: None)
        self.core = InstanceCore(Holder("me", 1), InstanceRole.MIXED, engine, slots, NoChecksums(), CoreConfig())
        self.core.on_front_joined(FRONT)
        self.core.effects.clear()
        self.token_ids: dict[tuple[str, Epoch], list[int]] = {}
        self.failures: list[BaseException] = []
        self.steps = StepLoop(self.core, self._deliver, lambda: None, self._fail)
        self.steps._next_tick_s = 1e9  # no tick carries out what was left

    def dispatch(self, request_id: str = "r", epoch: Epoch = Epoch(1, 1)) -> None:  # noqa: B008  # frozen
        state = SequenceState(
            request_id=request_id,
            front=FRONT,
            prompt_token_ids=PROMPT,
            sampling_params=SamplingParams(max_tokens=NUM_TOKENS),
            arrival_time_s=0.0,
        )
        self.tell(Dispatch(state=state, epoch=epoch))

    def tell(self, message: Dispatch | Stop) -> None:
        self.steps.post(partial(self.core.on_front_message, FRONT, message, 0.0))

    def reserve(self, request_id: str) -> None:
        message = Reserve(request_id=request_id, epoch=Epoch(1, 9), num_tokens=4, lease_s=5.0)
        self.steps.post(partial(self.core.on_source_message, SOURCE, message, 0.0), mid_step=True)

    def heard(self, count: int) -> list[str]:
        return [self.notes.get(timeout=PATIENCE_S) for _ in range(count)]

    def until(self, note: str) -> list[str]:
        notes = self.heard(1)
        while notes[-1] != note:
            notes += self.heard(1)
        return notes

    def _deliver(self, effects: list[Effect]) -> None:
        for effect in effects:
            self.notes.put(self._name(effect))

    def _name(self, effect: Effect) -> str:
        if isinstance(effect, ToFront) and isinstance(effect.message, StepUpdate):
            (update,) = effect.message.updates
            token_ids = self.token_ids.setdefault((update.request_id, update.epoch), [])
            assert update.start_index == len(token_ids)
            token_ids += update.token_ids
            return f"say {len(token_ids)}"
        if (
            isinstance(effect, ToFront)
            and isinstance(effect.message, DispatchRefused)
            and effect.message.may_run_elsewhere
        ):
            return f"give up {effect.message.request_id}"
        return type(effect.message).__name__ if isinstance(effect, ToFront | ToSource) else type(effect).__name__

    def _fail(self, error: BaseException) -> None:
        self.failures.append(error)
        self.notes.put(f"failed: {error}")


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    loop.dispatch()
    loop.steps.start()
    yield loop
    for _ in range(2 * NUM_TOKENS):
        loop.device.end_step()
    loop.steps.stop()


def test_tokens_go_out_while_the_next_step_is_computed_and_the_last_ones_at_once(loop: Loop) -> None:
    assert loop.heard(1) == ["launch 1"]
    for number in range(1, NUM_TOKENS):
        loop.device.end_step()
        assert loop.heard(3) == [f"tokens {number}", f"launch {number + 1}", f"say {number}"]
    loop.device.end_step()
    assert loop.heard(2) == [f"tokens {NUM_TOKENS}", f"say {NUM_TOKENS}"]
    assert loop.token_ids["r", Epoch(1, 1)] == expected_output(make_sequence(prompt=PROMPT, max_tokens=NUM_TOKENS))


def test_what_a_handover_needs_is_done_within_a_step_and_after_what_went_before(loop: Loop) -> None:
    loop.device.end_step()
    assert loop.heard(4) == ["launch 1", "tokens 1", "launch 2", "say 1"]
    loop.reserve("moved")
    assert loop.heard(1) == ["Reserved"]
    loop.device.end_step()
    assert loop.heard(3) == ["tokens 2", "launch 3", "say 2"]


def test_what_is_heard_between_two_steps_is_answered_after_what_went_before(loop: Loop) -> None:
    assert loop.heard(1) == ["launch 1"]
    loop.dispatch("r", Epoch(1, 1))  # again
    loop.device.end_step()
    assert loop.heard(4) == ["tokens 1", "launch 2", "say 1", "DispatchRefused"]


def test_a_request_that_is_stopped_between_two_steps_is_in_no_step_after_that(loop: Loop) -> None:
    assert loop.heard(1) == ["launch 1"]
    loop.tell(Stop(request_id="r", epoch=Epoch(1, 1)))
    loop.dispatch("other", Epoch(1, 2))
    loop.device.end_step()
    assert loop.heard(3) == ["tokens 1", "launch 2", "say 1"]
    assert loop.device.launched == [["r"], ["other"]]


def test_nothing_is_kept_back_when_the_loop_ends(loop: Loop) -> None:
    assert loop.heard(1) == ["launch 1"]
    with loop.steps._boundary:
        loop.steps._end()
    loop.device.end_step()
    assert loop.heard(2) == ["tokens 1", "say 1"]
    loop.steps.stop()
    assert loop.device.num_launched == 1


@pytest.mark.parametrize(
    ("half", "notes"),
    [("launch", ["launch 2", "say 1", "give up r"]), ("collect", ["launch 2", "say 1", "tokens 2", "give up r"])],
)
def test_a_step_without_memory_gives_up_its_requests_after_what_was_said_before(
    loop: Loop, caplog: pytest.LogCaptureFixture, half: str, notes: list[str]
) -> None:
    loop.device.failing[f"{half} 2"] = OutOfDeviceMemory(("r",))
    assert loop.heard(1) == ["launch 1"]
    loop.device.end_step()
    loop.device.end_step()
    assert loop.heard(1 + len(notes)) == ["tokens 1", *notes]
    assert "a step is given up" in caplog.text
    with loop.steps._has_core:
        assert loop.core._scheduler.block_manager.num_free_blocks == 16  # its blocks, too, while nothing runs
    loop.dispatch("r", Epoch(1, 2))
    for _ in range(NUM_TOKENS):
        loop.device.end_step()
    loop.until(f"say {NUM_TOKENS}")
    assert not loop.failures
    loop.core._scheduler.check_integrity()


@pytest.mark.parametrize("half", ["launch", "collect"])
def test_an_exception_ends_the_instance_after_what_was_said_before(
    loop: Loop, caplog: pytest.LogCaptureFixture, half: str
) -> None:
    loop.device.failing[f"{half} 2"] = RuntimeError("broken")
    assert loop.heard(1) == ["launch 1"]
    loop.device.end_step()
    loop.device.end_step()
    assert "say 1" in loop.until("failed: broken")
