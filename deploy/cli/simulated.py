"""What a simulation found, as `baton simulate` prints it."""

from typing import TYPE_CHECKING

from deploy.cli.links import format_rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

    from deploy.simulating.rates import AtRate
    from deploy.simulating.simulated import Simulated

_MAX_ROWS = 24
_MAX_ERRORS = 5


def show(found: "Simulated", console: "Console") -> None:
    from deploy.bench.report import print_figures
    from deploy.simulating.simulated import alike

    print_figures(found.figures, console)
    console.print(instances(found))
    if found.report.links:
        console.print(links(found))
    for reason, outcomes in found.report.handovers.items():
        listed = ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.items())
        console.print(f"handovers, {reason}: {listed}", highlight=False)
    if found.num_cut_short:
        console.print(f"{found.num_cut_short:,} cut short: no room for all the output asked for", highlight=False)
    for error, count, first in alike(found.errors)[:_MAX_ERRORS]:
        which = f"request {first}" if count == 1 else f"the first is request {first}"
        console.print(f"{count:,} × {error} ({which})", markup=False, highlight=False)
    speed = found.report.num_requests / found.wall_s
    console.print(
        f"simulated in {found.wall_s:.2f} s: {speed:,.0f} requests/s, {found.report.num_events:,} events",
        highlight=False,
    )


def instances(found: "Simulated") -> "Table":
    """The busiest first."""
    from rich.table import Table

    columns = "instance", "role", "node", "busy", "steps", "prompt tokens", "decoded", "cached", "preempted", "peak KV"
    table = Table(*columns, box=None, pad_edge=False)
    uses = sorted(found.report.instances, key=lambda use: -use.busy_s)
    for use in uses[:_MAX_ROWS]:
        table.add_row(
            use.name,
            use.role,
            use.node,
            f"{found.share_of(use):.0%}",
            f"{use.num_steps:,}",
            f"{use.num_prefill_tokens:,}",
            f"{use.num_decode_tokens:,}",
            f"{use.num_cached_tokens:,}",
            f"{use.num_preemptions:,}",
            f"{use.peak_kv_use:.0%}",
        )
    return _capped(table, len(uses))


def links(found: "Simulated") -> "Table":
    """Those that moved most first; how fast they were while they moved anything."""
    from rich.table import Table

    from cluster.spec.quantity import format_bytes

    table = Table("link", "transfers", "failed", "moved", "busy", "rate when busy", box=None, pad_edge=False)
    uses = sorted(found.report.links, key=lambda use: -use.num_bytes)
    for use in uses[:_MAX_ROWS]:
        table.add_row(
            f"{use.source} → {use.target}",
            f"{use.num_transfers:,}",
            f"{use.num_failures:,}",
            format_bytes(use.num_bytes),
            f"{found.share_of(use):.0%}",
            format_rate(use.num_bytes / use.busy_s) if use.busy_s else "-",
        )
    return _capped(table, len(uses))


def rates(found: "Sequence[AtRate]", target: float) -> "Table":
    from rich.table import Table

    names = list(found[0].attainment_of)
    table = Table("requests/s", "within SLOs", *names, "goodput, req/s", box=None, pad_edge=False)
    for each in found:
        alone = (f"{each.attainment_of[name]:.1%}" for name in names)
        mark = "" if each.attainment >= target else f"  (below {target:.0%})"
        table.add_row(f"{each.rate:g}", f"{each.attainment:.1%}{mark}", *alone, f"{each.request_goodput:.2f}")
    return table


def _capped(table: "Table", num_rows: int) -> "Table":
    if num_rows > _MAX_ROWS:
        table.caption = f"{_MAX_ROWS} of {num_rows}"
    return table
