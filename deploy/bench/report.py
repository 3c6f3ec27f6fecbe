"""Shows and keeps what a serving benchmark found."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cluster.pb import baton_pb2
from deploy.bench.metrics import PERCENTILES, Figures
from deploy.bench.outcome import Outcome

_COUNTS = {
    "completed": "completed requests",
    "failed": "failed requests",
    "duration": "duration, s",
    "total_input_tokens": "prompt tokens",
    "total_output_tokens": "output tokens",
    "request_throughput": "requests / s",
    "request_goodput": "requests within the SLOs / s",
    "slo_attainment": "share of requests within the SLOs",
    "output_throughput": "output tokens / s",
    "total_token_throughput": "tokens / s",
}
_LATENCIES = {
    "ttft": "time to first token",
    "second_token": "from first to second token",
    "tpot": "time per output token",
    "itl": "between pieces of the stream",
    "e2el": "end to end",
}


def print_figures(figures: Figures, console: Console) -> None:
    counts = Table("", "", show_header=False)
    for name, label in _COUNTS.items():
        value = figures[name]
        if value is not None:
            counts.add_row(label, f"{value:,}" if isinstance(value, int) else f"{value:,.2f}")
    latencies = Table("ms", "mean", *(f"p{percentile}" for percentile in PERCENTILES))
    for name, label in _LATENCIES.items():
        values = [figures[f"{kind}_{name}_ms"] for kind in ("mean", *(f"p{percentile}" for percentile in PERCENTILES))]
        latencies.add_row(label, *("-" if value is None else f"{value:,.1f}" for value in values))
    console.print(counts, latencies)


def print_errors(outcomes: Sequence[Outcome], console: Console) -> None:
    for error, count in Counter(outcome.error for outcome in outcomes if outcome.error).most_common(5):
        console.print(f"{count} × {error}", markup=False)


def leftovers(status: baton_pb2.ClusterStatus) -> list[str]:
    """What an idle deployment should not hold, by instance; empty when all is let go of."""
    return [
        f"{one.instance} holds {count} {what}"
        for one in status.instances
        for count, what in (
            (one.num_sequences, "sequences"),
            (one.num_reserved_blocks, "reserved blocks"),
            (one.num_leaked_blocks, "leaked blocks"),
        )
        if count
    ]


def write_json(path: Path, figures: Mapping[str, Any], **context: Any) -> None:
    """`context` comes first; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**context, **figures}, indent=2) + "\n")
