"""Both sides of a comparison, the differences, and the limits that they should keep to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from deploy.bench.metrics import Figures

LIMITS = {50: 0.15, 90: 0.25}
"""How far a percentile of the simulator may be from the real one."""

_COMPARED = {"ttft": "time to first token", "tpot": "time per output token"}
_ALSO_SHOWN = {"second_token": "from first to second token", "e2el": "end to end"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`limit` None: shown without a judgement."""

    name: str
    percentile: int
    real_ms: float
    simulated_ms: float
    limit: float | None

    @property
    def difference(self) -> float:
        return self.simulated_ms / self.real_ms - 1.0

    @property
    def is_within(self) -> bool:
        return self.limit is None or abs(self.difference) <= self.limit


def compare(real: Figures, simulated: Figures) -> list[Row]:
    return [
        Row(
            name=name,
            percentile=percentile,
            real_ms=float(real[key] or 0.0),
            simulated_ms=float(simulated[key] or 0.0),
            limit=limit if name in _COMPARED else None,
        )
        for name in (*_COMPARED, *_ALSO_SHOWN)
        for percentile, limit in LIMITS.items()
        for key in (f"p{percentile}_{name}_ms",)
    ]


def table_of(rows: list[Row], title: str) -> Table:
    table = Table("", "", "real, ms", "simulated, ms", "difference", "limit", "", title=title)
    for row in rows:
        limit = "" if row.limit is None else f"{row.limit:.0%}"
        verdict = "" if row.limit is None else "kept" if row.is_within else "not kept"
        label = (_COMPARED | _ALSO_SHOWN)[row.name]
        table.add_row(
            label,
            f"p{row.percentile}",
            f"{row.real_ms:.1f}",
            f"{row.simulated_ms:.1f}",
            f"{row.difference:+.1%}",
            limit,
            verdict,
        )
    return table


def as_json(rows: list[Row]) -> list[Mapping[str, Any]]:
    return [
        {
            "metric": row.name,
            "percentile": row.percentile,
            "real_ms": row.real_ms,
            "simulated_ms": row.simulated_ms,
            "difference": row.difference,
            "limit": row.limit,
            "is_within": row.is_within,
        }
        for row in rows
    ]
