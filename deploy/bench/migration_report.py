"""The figures of `baton bench migration`, from samples to rows, and what they say about the aims."""

from collections.abc import Sequence
from statistics import mean, median, quantiles
from typing import Any

from rich.console import Console
from rich.table import Table

from deploy.bench.migration_row import Samples

Row = dict[str, Any]

LIVE_STEPS, BUSY_STEPS, BUSY_P99_STEPS = 0.5, 1.0, 1.75
SLOPE_SHARE, LINK_SHARE, TRANSFER_SHARE, OTHERS_SHARE = 0.05, 0.8, 0.7, 0.97
LARGE_TOKENS = 2048
_SLOPES = {
    "added_gap_ms": "live",
    "still_gap_ms": "the same without a move",
    "blocking_copy_ms": "blocking copy",
    "recompute_ms": "recompute",
}


def make_row(samples: Samples, reference: Sequence[int], record_bytes: int) -> Row:
    """Gaps in milliseconds; shares are of 1."""
    live = [move.added_gap_s for move in samples.live]
    busy = [move.added_gap_s for move in samples.busy]
    step_s, busy_step_s = (median(move.step_s for move in moves) for moves in (samples.live, samples.busy))
    link = median(it.num_blocks * record_bytes / it.link_s for it in samples.handovers)
    raw_link = record_bytes / median(samples.raw_link_s)
    without, during = samples.others_s
    return {
        "num_tokens": samples.num_tokens,
        "bytes": int(median(it.num_blocks for it in samples.handovers)) * record_bytes,
        "num_migrations": len(live),
        "added_gap_ms": 1e3 * median(live),
        "added_gap_p99_ms": 1e3 * p99(live),
        "still_gap_ms": 1e3 * median(move.still_gap_s for move in samples.live),
        "decode_step_ms": 1e3 * step_s,
        "added_gap_steps": median(live) / step_s,
        "num_busy_migrations": len(busy),
        "busy_added_gap_ms": 1e3 * median(busy),
        "busy_added_gap_p99_ms": 1e3 * p99(busy),
        "busy_decode_step_ms": 1e3 * busy_step_s,
        "busy_added_gap_steps": median(busy) / busy_step_s,
        "busy_added_gap_p99_steps": p99(busy) / busy_step_s,
        "num_blocking_copies": len(samples.blocking),
        "blocking_copy_ms": 1e3 * median(move.added_gap_s for move in samples.blocking),
        "num_recomputes": len(samples.recomputed),
        "recompute_ms": 1e3 * median(move.added_gap_s for move in samples.recomputed),
        "others_throughput_share": mean(without) / mean(during),
        "handover_ms": 1e3 * median(it.total_s for it in samples.handovers),
        "reserve_ms": 1e3 * median(it.reserve_s for it in samples.handovers),
        "transfer_ms": 1e3 * median(it.transfer_s for it in samples.handovers),
        "frozen_ms": 1e3 * median(it.frozen_s for it in samples.handovers),
        "num_transfers": int(median(it.num_transfers for it in samples.handovers)),
        "transfer_share": median(it.transfer_s / it.total_s for it in samples.handovers),
        "link_bytes_per_s": link,
        "raw_link_bytes_per_s": raw_link,
        "raw_link_idle_bytes_per_s": record_bytes / median(samples.raw_idle_s),
        "link_share": link / raw_link,
        "tokens_identical": all(segment == list(reference[: len(segment)]) for segment in samples.segments),
    }


def p99(values: Sequence[float]) -> float:
    return max(values) if len(values) < 2 else quantiles(values, n=100, method="inclusive")[98]


def slope_ms_per_mib(rows: Sequence[Row], name: str) -> float:
    """Least squares over the rows."""
    sizes, values = [row["bytes"] / 2**20 for row in rows], [row[name] for row in rows]
    middle, average = mean(sizes), mean(values)
    spread = sum((size - middle) ** 2 for size in sizes)
    if not spread:
        return 0.0
    return float(sum((size - middle) * (value - average) for size, value in zip(sizes, values, strict=True)) / spread)


def aims(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """What was asked for: the worst row of each, and whether it is met."""
    large = [row for row in rows if row["num_tokens"] >= LARGE_TOKENS]

    def least(what: str, rows: Sequence[Row], name: str, bound: float) -> dict[str, Any]:
        value = min(row[name] for row in rows)
        return {"aim": what, "value": value, "bound": bound, "is_met": value >= bound}

    def most(what: str, value: float, bound: float) -> dict[str, Any]:
        return {"aim": what, "value": value, "bound": bound, "is_met": value <= bound}

    blocking = slope_ms_per_mib(rows, "blocking_copy_ms")
    out = [
        most("added gap, idle destination, median, steps", max(row["added_gap_steps"] for row in rows), LIVE_STEPS),
        most(
            "added gap, busy destination, median, steps", max(row["busy_added_gap_steps"] for row in rows), BUSY_STEPS
        ),
        most(
            "added gap, busy destination, p99, steps",
            max(row["busy_added_gap_p99_steps"] for row in rows),
            BUSY_P99_STEPS,
        ),
        least("link use, share of the raw link in the same minutes", rows, "link_share", LINK_SHARE),
        least("throughput of others, a core free for the copy", rows, "others_throughput_share", OTHERS_SHARE),
    ]
    if len(rows) > 1 and blocking > 0:
        share = slope_ms_per_mib(rows, "added_gap_ms") / blocking
        out.insert(3, most("slope of the added gap, share of blocking copy's", share, SLOPE_SHARE))
    if large:
        out.append(least("share of a handover that is transfer, 2k and more", large, "transfer_share", TRANSFER_SHARE))
    return out


def print_report(rows: Sequence[Row], console: Console) -> None:
    console.print(_gaps(rows), _work(rows), _aims(rows))
    for name, label in _SLOPES.items():
        console.print(f"slope of {label}: {slope_ms_per_mib(rows, name):.3f} ms/MiB", highlight=False)


def _gaps(rows: Sequence[Row]) -> Table:
    table = Table(title="Added gap, ms (in decode steps): the longest between two tokens around a move less the median")
    for column in (
        "tokens",
        "MiB",
        "step",
        "no move",
        "live, idle",
        "p99",
        "live, busy",
        "p99",
        "blocking",
        "recompute",
        "same",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        busy_ms, busy_p99_ms = row["busy_added_gap_ms"], row["busy_added_gap_p99_ms"]
        table.add_row(
            str(row["num_tokens"]),
            f"{row['bytes'] / 2**20:.1f}",
            f"{row['decode_step_ms']:.1f}",
            f"{row['still_gap_ms']:.1f}",
            f"{row['added_gap_ms']:.1f} ({row['added_gap_steps']:.2f})",
            f"{row['added_gap_p99_ms']:.1f}",
            f"{busy_ms:.1f} ({row['busy_added_gap_steps']:.2f})",
            f"{busy_p99_ms:.1f} ({row['busy_added_gap_p99_steps']:.2f})",
            f"{row['blocking_copy_ms']:.1f}",
            f"{row['recompute_ms']:.0f}",
            "yes" if row["tokens_identical"] else "NO",
        )
    return table


def _work(rows: Sequence[Row]) -> Table:
    table = Table(title="Live handovers to an idle instance; others: their throughput in the source meanwhile")
    for column in (
        "tokens",
        "ms",
        "reserve",
        "transfer",
        "frozen",
        "share",
        "GB/s",
        "raw",
        "raw, idle",
        "share",
        "others",
        "moves",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            str(row["num_tokens"]),
            *(f"{row[name]:.1f}" for name in ("handover_ms", "reserve_ms", "transfer_ms", "frozen_ms")),
            f"{row['transfer_share']:.0%}",
            *(f"{row[f'{name}_bytes_per_s'] / 1e9:.2f}" for name in ("link", "raw_link", "raw_link_idle")),
            f"{row['link_share']:.0%}",
            f"{row['others_throughput_share']:.1%}",
            f"{row['num_migrations']}+{row['num_busy_migrations']}",
        )
    return table


def _aims(rows: Sequence[Row]) -> Table:
    table = Table("aim", "worst row", "bound", "")
    for aim in aims(rows):
        table.add_row(aim["aim"], f"{aim['value']:.3f}", f"{aim['bound']:g}", "met" if aim["is_met"] else "missed")
    return table
