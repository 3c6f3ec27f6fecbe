"""The loop's body: schedule, run, update."""

from collections.abc import Sequence as List
from typing import Protocol, runtime_checkable

from cluster.engine.scheduler import Scheduler
from cluster.engine.scheduler_output import SampledToken, SchedulerOutput, StepResult


class Runner(Protocol):
    def run(self, output: SchedulerOutput) -> List[SampledToken]:
        """One token per entry that samples, in order. Called only with something to compute."""
        ...


@runtime_checkable
class Launcher(Protocol):
    """A runner whose `run` is `launch` and then `collect`."""

    computes_beside: bool
    """Whether a step is computed on a device of its own, so that the host has time between the two."""

    def launch(self, output: SchedulerOutput) -> None:
        """Begins a step, which the next `collect` ends. Whatever went wrong with the last one is over."""
        ...

    def collect(self) -> List[SampledToken]:
        """Waits for the step, and returns what `run` does."""
        ...


class Engine:
    """`launcher`: the runner, if it computes beside the host."""

    def __init__(self, scheduler: Scheduler, runner: Runner) -> None:
        self.scheduler = scheduler
        self.runner = runner
        self.launcher = runner if isinstance(runner, Launcher) and runner.computes_beside else None

    def step(self) -> StepResult:
        output = self.scheduler.schedule()
        sampled = self.runner.run(output) if output.scheduled else []
        return self.scheduler.update(output, sampled)
