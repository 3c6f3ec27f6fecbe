"""The loop's body: schedule, run, update."""

from collections.abc import Sequence as List
from typing import Protocol

from cluster.engine.scheduler import Scheduler
from cluster.engine.scheduler_output import SampledToken, SchedulerOutput, StepResult


class Runner(Protocol):
    def run(self, output: SchedulerOutput) -> List[SampledToken]:
        """One token per entry that samples, in order. Called only with something to compute."""
        ...


class Launcher(Protocol):
    """A runner that computes on a device beside the host: `run` in two halves, with time between them."""

    def launch(self, output: SchedulerOutput) -> None:
        """Begins a step, which the next `collect` ends. Whatever went wrong with the last one is over."""
        ...

    def collect(self) -> List[SampledToken]:
        """Waits for the step, and returns what `run` does."""
        ...


class Engine:
    """`launcher`: the runner again, if it is one."""

    def __init__(self, scheduler: Scheduler, runner: Runner, launcher: Launcher | None = None) -> None:
        self.scheduler = scheduler
        self.runner = runner
        self.launcher = launcher

    def step(self) -> StepResult:
        output = self.scheduler.schedule()
        sampled = self.runner.run(output) if output.scheduled else []
        return self.scheduler.update(output, sampled)
