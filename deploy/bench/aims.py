"""What is asked of a benchmark's figures, and whether they reach it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """A share; `least` or `most`: what it may be. `value` None: it could not be measured here."""

    what: str
    value: float | None
    least: float | None = None
    most: float | None = None

    @property
    def is_met(self) -> bool | None:
        if self.value is None:
            return None
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)

    def to_dict(self) -> dict[str, Any]:
        return {"what": self.what, "value": self.value, "least": self.least, "most": self.most, "is_met": self.is_met}

    def __str__(self) -> str:
        limits = [
            f"{word} {limit:.1%}"
            for word, limit in (("at least", self.least), ("at most", self.most))
            if limit is not None
        ]
        verdict = {True: "met", False: "MISSED", None: "not measured"}[self.is_met]
        value = "" if self.value is None else f" {self.value:.1%}"
        return f"{verdict}: {self.what}{value} ({', '.join(limits)} asked)"


def print_aims(aims: Sequence[Aim], console: Console) -> None:
    for aim in aims:
        console.print(str(aim), markup=False, highlight=False)
