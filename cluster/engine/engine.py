"""The loop's body: schedule, run, update."""

from collections.abc import Sequence as List
from typing import Protocol

from cluster.engine.scheduler import Scheduler
from cluster.engine.scheduler_output import SampledToken, SchedulerOutput, StepResult


class Runner(Protocol):
    def run(self, output: SchedulerOutput) -> List[SampledToken]:
        """One token per entry that samples, in order. Called only with something to compute."""
        ...


class Engine:
    def __init__(self, scheduler: Scheduler, runner: Runner) -> None:
        self.scheduler = scheduler
        self.runner = runner

    def step(self) -> StepResult:
        output = self.scheduler.schedule()
        sampled = self.runner.run(output) if output.scheduled else []
        return self.scheduler.update(output, sampled)
