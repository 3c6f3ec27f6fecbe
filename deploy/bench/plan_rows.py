"""Rows of the comparison of plans: what each plan reached, with intervals, as a table and as JSON."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Self

from rich.console import Console
from rich.table import Table

from cluster.spec.quantity import format_count
from deploy.bench.report import write_json

OURS, HIGH, LOW, COLOCATED = "ours", "DistServe high", "DistServe low", "colocated"
PLANS = (OURS, HIGH, LOW, COLOCATED)
RIVALS = (HIGH, LOW, COLOCATED)

# Student's t, 97.5 %, by degrees of freedom.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Of a mean, 95 %; half of it is `margin`."""

    mean: float
    margin: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        freedom = len(values) - 1
        spread = _T[min(freedom, len(_T)) - 1] * stdev(values) / sqrt(len(values)) if freedom else 0.0
        return cls(mean=mean(values), margin=spread)

    def __str__(self) -> str:
        return f"{self.mean:.3g} ±{self.margin:.2g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """By one plan. `goodputs`: requests a second of all its instances, for each seed; () where it can do nothing.

    `obstacles`: what keeps `baton up` from running it. `num_beyond`: seeds with more than can be served in the long
    run: the limits are so wide that no trial told, and it is marked.
    """

    unit: str
    num_gpus: int
    goodputs: tuple[float, ...]
    obstacles: tuple[str, ...] = ()
    num_beyond: int = 0

    @property
    def per_gpu(self) -> tuple[float, ...]:
        return tuple(goodput / self.num_gpus for goodput in self.goodputs) if self.num_gpus else (0.0,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`reached`: by plan. `seconds`: that it took to find and measure all of them."""

    case: str
    network: str
    is_unequal: bool
    reached: dict[str, Reached]
    seconds: float

    def per_gpu(self, plan: str) -> Interval:
        return Interval.of(self.reached[plan].per_gpu)

    def best_of(self, plans: Sequence[str]) -> str:
        return max(plans, key=lambda plan: self.per_gpu(plan).mean)

    def ratio(self, plans: Sequence[str]) -> Interval | None:
        """Of ours to the best of these, seed by seed: all plans have the same requests. None: these can do nothing."""
        ours, other = self.reached[OURS].per_gpu, self.reached[self.best_of(plans)].per_gpu
        if not all(other):
            return None
        return Interval.of([mine / theirs for mine, theirs in zip(ours, other, strict=True)])

    @property
    def is_lost(self) -> bool:
        """Whatever its interval says: that is for the reader to judge."""
        ratio = self.ratio(RIVALS)
        return ratio is not None and ratio.mean < 1.0

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Self:
        reached = {
            plan: Reached(**{**it, "goodputs": tuple(it["goodputs"]), "obstacles": tuple(it["obstacles"])})
            for plan, it in row["reached"].items()
        }
        return cls(**{**row, "reached": reached})


def table_of(rows: Sequence[Row]) -> Table:
    table = Table("case", "network", *PLANS, "ours / best other", "ours / DistServe's better")
    for row in rows:
        ratios = (row.ratio(RIVALS), row.ratio((HIGH, LOW)))
        table.add_row(
            row.case,
            row.network,
            *(f"{row.per_gpu(plan)}{' *' * bool(row.reached[plan].num_beyond)}" for plan in PLANS),
            *("-" if ratio is None else str(ratio) for ratio in ratios),
        )
    return table


def verdict(rows: Sequence[Row]) -> list[str]:
    """What the table says, in lines."""
    lines = [
        f"{row.case}, {row.network}: {row.ratio(RIVALS)} of {row.best_of(RIVALS)}, "
        f"{row.reached[row.best_of(RIVALS)].unit}"
        for row in rows
        if row.is_lost
    ]
    if not lines:
        lines = ["no row is lost to any of the three"]
    if any(reached.num_beyond for row in rows for reached in row.reached.values()):
        lines.append("*: more than can be served in the long run; the limits are too wide for trials of this length")
    for name, chosen in (
        ("all networks", list(rows)),
        ("cables that are not equal", [row for row in rows if row.is_unequal]),
    ):
        found = [ratio.mean for row in chosen if (ratio := row.ratio((HIGH, LOW))) is not None]
        if found:
            of_rows = format_count(len(found), "row")
            lines.append(f"{name}: {mean(found):.2f} times DistServe's better plan, in the mean of {of_rows}")
    return lines


def markdown(rows: Sequence[Row]) -> str:
    """The table, and what the plans are, with the GPUs that each has."""
    table = table_of(rows)
    heads = [str(column.header) for column in table.columns]
    cells = zip(*(column.cells for column in table.columns), strict=True)
    units = (
        (row.case, row.network, *(f"{row.reached[plan].unit or '-'} ({row.reached[plan].num_gpus})" for plan in PLANS))
        for row in rows
    )
    parts = [_markdown_table(heads, cells), _markdown_table(["case", "network", *PLANS], units)]
    return "\n".join([*parts, *(f"- {line}" for line in verdict(rows)), ""])


def _markdown_table(heads: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


def print_rows(rows: Sequence[Row], console: Console) -> None:
    console.print(table_of(rows))
    for line in verdict(rows):
        console.print(line, highlight=False, soft_wrap=True)


def write_rows(file: Path, rows: Sequence[Row], settings: dict[str, Any]) -> None:
    write_json(file, {}, settings=settings, rows=[asdict(row) for row in rows])


def read_rows(file: Path, settings: dict[str, Any]) -> list[Row]:
    """Those that were found with the same settings; none where there is no such file."""
    if not file.exists():
        return []
    kept = json.loads(file.read_text())
    return [Row.from_json(row) for row in kept["rows"]] if kept["settings"] == settings else []
