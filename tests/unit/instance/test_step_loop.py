"""Who has the core when: what a handover needs is done in the middle of a step, all else between two."""

import queue
import threading
from collections.abc import Iterator
from functools import partial
from typing import TypeVar

import pytest

from cluster.engine.engine import Engine
from cluster.engine.sampling_params import SamplingParams
from cluster.engine.scheduler_output import SampledToken, SchedulerOutput
from cluster.instance.config import CoreConfig
from cluster.instance.core import InstanceCore
from cluster.instance.effects import Effect, ToFront, ToSource
from cluster.instance.step_loop import StepLoop
from cluster.links.slot_table import SlotTable
from cluster.messages import (
    Dispatch,
    DispatchRefused,
    Epoch,
    Holder,
    Reserve,
    Reserved,
    SequenceState,
    StepUpdate,
    Stop,
)
from cluster.model.errors import OutOfDeviceMemory
from cluster.role import InstanceRole
from tests.simulated.world import FRONT, NoChecksums
from tests.unit.engine.factories import FakeRunner, make_scheduler

pytestmark = pytest.mark.unit

SOURCE = Holder("source", 1)
PATIENCE_S = 20.0
Message = TypeVar("Message")


class HeldRunner(FakeRunner):
    """Says when a step has begun, and ends it when it may."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.has_begun, self.may_end = threading.Event(), threading.Event()
        self.is_out_of_memory = False

    def run(self, output: SchedulerOutput) -> list[SampledToken]:
        self.has_begun.set()
        assert self.may_end.wait(PATIENCE_S)
        if self.is_out_of_memory:
            raise OutOfDeviceMemory(tuple(entry.sequence.request_id for entry in output.scheduled))
        return super().run(output)


class Beat:
    """A loop whose first step is under way."""

    def __init__(self) -> None:
        scheduler = make_scheduler(16, max_num_batched_tokens=16, max_num_seqs=4)
        self.runner = HeldRunner(scheduler.block_manager)
        slots = SlotTable(lambda reservation: None)
        engine = Engine(scheduler, self.runner)
        self.core = InstanceCore(Holder("me", 1), InstanceRole.MIXED, engine, slots, NoChecksums(), CoreConfig())
        self.core.on_front_joined(FRONT)
        self.core.effects.clear()
        self.said: queue.Queue[Effect] = queue.Queue()
        self.failures: list[BaseException] = []
        self.steps = StepLoop(self.core, self._deliver, lambda: None, self._fail)
        self.steps.start()
        self.dispatch(Epoch(1, 1))
        assert self.runner.has_begun.wait(PATIENCE_S)

    def dispatch(self, epoch: Epoch) -> None:
        state = SequenceState(
            request_id="r",
            front=FRONT,
            prompt_token_ids=(1, 2, 3),
            sampling_params=SamplingParams(max_tokens=4),
            arrival_time_s=0.0,
        )
        self.tell(Dispatch(state=state, epoch=epoch))

    def message(self, kind: type[Message]) -> Message:
        """The next one of this kind to a front."""
        while not (
            isinstance(effect := self.said.get(timeout=PATIENCE_S), ToFront) and isinstance(effect.message, kind)
        ):
            pass
        return effect.message

    def _deliver(self, effects: list[Effect]) -> None:
        for effect in effects:
            self.said.put(effect)

    def _fail(self, error: BaseException) -> None:
        self.failures.append(error)
        self.said.put(ToSource(SOURCE, error))  # type: ignore[arg-type]

    def tell(self, message: Dispatch | Stop) -> None:
        self.steps.post(partial(self.core.on_front_message, FRONT, message, 0.0))

    def reserve(self, request_id: str) -> None:
        message = Reserve(request_id=request_id, epoch=Epoch(1, 9), num_tokens=4, lease_s=5.0)
        self.steps.post(partial(self.core.on_source_message, SOURCE, message, 0.0), mid_step=True)

    def reserved(self) -> str:
        """The next request that room was made for."""
        while True:
            effect = self.said.get(timeout=PATIENCE_S)
            if isinstance(effect, ToSource):
                assert isinstance(effect.message, Reserved)
                return effect.message.request_id

    @property
    def is_in_step(self) -> bool:
        return not self.runner.may_end.is_set()


@pytest.fixture
def beat() -> Iterator[Beat]:
    beat = Beat()
    yield beat
    beat.runner.may_end.set()
    beat.steps.stop()


def test_a_handover_does_not_wait_for_the_step_under_way(beat: Beat) -> None:
    beat.reserve("moved")
    assert beat.reserved() == "moved"
    assert beat.is_in_step


def test_what_was_posted_after_something_that_waits_for_the_step_waits_too(beat: Beat) -> None:
    beat.reserve("first")
    beat.tell(Stop(request_id="second", epoch=Epoch(1, 10)))
    beat.reserve("second")
    beat.reserve("third")
    assert beat.reserved() == "first"
    beat.runner.may_end.set()
    with pytest.raises(AssertionError):  # refused: it comes after the Stop
        beat.reserved()
    assert beat.reserved() == "third"


def test_requests_of_a_step_without_memory_are_given_up_and_the_next_one_runs(
    beat: Beat, caplog: pytest.LogCaptureFixture
) -> None:
    beat.runner.is_out_of_memory = True
    beat.runner.may_end.set()
    refused = beat.message(DispatchRefused)
    assert (refused.request_id, refused.epoch, refused.may_run_elsewhere) == ("r", Epoch(1, 1), True)
    assert "a step is given up" in caplog.text
    beat.runner.is_out_of_memory = False
    beat.dispatch(Epoch(1, 2))
    assert [update.epoch for update in beat.message(StepUpdate).updates] == [Epoch(1, 2)]
    assert not beat.failures
    beat.steps.stop()
    beat.core._scheduler.check_integrity()


def test_an_exception_in_the_middle_of_a_step_is_the_end_of_the_instance(
    beat: Beat, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("broken")

    beat.steps.post(fail, mid_step=True)
    assert beat.said.get(timeout=PATIENCE_S)
    assert [str(error) for error in beat.failures] == ["broken"]
