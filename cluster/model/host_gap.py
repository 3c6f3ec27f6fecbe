"""How long a device waits for the host between two decode steps."""

from dataclasses import dataclass


@dataclass(slots=True)
class HostGap:
    """Over steps that decode only, each after another step with requests in common: there was work all the time.

    `gap_s`: from the tokens of the step before to when this one was launched; `step_s`: from those tokens to its own.
    `num_foreseen`: steps that were laid out before those tokens were there.
    """

    num_steps: int = 0
    num_foreseen: int = 0
    gap_s: float = 0.0
    step_s: float = 0.0

    def launched(self, gap_s: float, *, is_foreseen: bool) -> None:
        self.num_steps += 1
        self.num_foreseen += is_foreseen
        self.gap_s += gap_s

    @property
    def share(self) -> float:
        """Of a step's time; 0 before the first one."""
        return self.gap_s / self.step_s if self.step_s else 0.0
