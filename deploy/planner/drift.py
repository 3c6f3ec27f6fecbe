"""Whether the links have drifted so far that what runs should run elsewhere."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftConfig:
    margin: float = 0.15
    """Another assignment has to save so much of the time that transfers take,"""

    num_checks: int = 3
    """in so many checks in a row: moving instances costs more than a bad minute."""


class Drift:
    """Asked at each check; goes back to calm when a check finds less than half of the margin to be saved."""

    def __init__(self, config: DriftConfig | None = None) -> None:
        self._config = config or DriftConfig()
        self._num_found = 0

    @property
    def has_drifted(self) -> bool:
        return self._num_found >= self._config.num_checks

    def check(self, current_s: float, best_s: float) -> bool:
        """`current_s`: what runs now, by the links as they are; `best_s`: what the planner would choose."""
        saved = 1.0 - best_s / current_s if current_s > 0.0 else 0.0
        if saved >= self._config.margin:
            self._num_found += 1
        elif not self.has_drifted or saved < self._config.margin / 2:
            self._num_found = 0
        return self.has_drifted
