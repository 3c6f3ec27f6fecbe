"""The tables of the benchmarks that run on a GPU."""

from typing import Any

from rich.console import Console
from rich.table import Table

from deploy.bench.aims import print_aims
from deploy.bench.gpu_figures import engine_aims
from deploy.bench.gpu_link_figures import link_aims


def title(figures: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    return f"{figures['num_gpus']} × {figures['gpu']}; {versions}; medians of {figures['num_repeats']}"


def print_engine(figures: dict[str, Any], console: Console) -> None:
    console.print(
        f"{title(figures)}\n"
        f"{figures['model']} ({figures['num_parameters'] / 1e9:.2f}G parameters, {figures['dtype']}), "
        f"{figures['attention']}; measured here: memory {figures['memory_bytes_per_s'] / 1e12:.2f} TB/s, "
        f"products {figures['product_flops_per_s'] / 1e12:.0f} TFLOP/s",
        highlight=False,
    )
    console.print(_decode(figures), _prefill(figures))
    print_aims(engine_aims(figures), console)


def _decode(figures: dict[str, Any]) -> Table:
    table = Table(title=f"Decode, {figures['num_context_tokens']} tokens of context, {figures['num_steps']} steps")
    columns = ("tok/s", "ms a step", "bound ms", "share of bound", "host gap", "beyond the pass", "costs")
    for column in ("batch", "way", *columns):
        table.add_column(column, justify="left" if column == "way" else "right")
    for row in figures["decode"]:
        table.add_row(
            str(row["batch_size"]),
            row["way"],
            f"{row['throughput']:.0f}",
            f"{row['step_ms']:.3f}",
            f"{row['bound_ms']:.3f}",
            f"{row['share_of_bound']:.1%}",
            f"{row['host_gap_share']:.1%}",
            f"{row['beyond_pass_share']:.1%}",
            f"{row['cost']:+.1%}",
        )
    return table


def _prefill(figures: dict[str, Any]) -> Table:
    table = Table(title="Prefill, one prompt in one step")
    for column in ("tokens", "way", "tok/s", "ms", "TFLOP/s", "share of products", "costs"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for row in figures["prefill"]:
        table.add_row(
            str(row["num_tokens"]),
            row["way"],
            f"{row['throughput']:.0f}",
            f"{row['ms']:.1f}",
            f"{row['flops_per_s'] / 1e12:.0f}",
            f"{row['share_of_products']:.1%}",
            f"{row['cost']:+.1%}",
        )
    return table


def print_links(figures: dict[str, Any], console: Console) -> None:
    console.print(f"{title(figures)}; blocks of {figures['record_bytes'] >> 10} KiB", highlight=False)
    console.print(_copies(figures["copies"]))
    migration = figures["migration"]
    stall = migration["stall_ms"]
    console.print(
        f"migration of {migration['num_requests']} requests, {migration['num_bytes'] >> 20} MiB, {migration['way']}: "
        f"{migration['same_kv']:.0%} with the same KV, {migration['same_tokens']:.0%} with the same tokens; "
        + ("not timed: there is one GPU" if stall is None else f"no token for {stall:.1f} ms"),
        highlight=False,
    )
    for row in figures["leaving"]:
        console.print(_leaving(row), highlight=False)
    print_aims(link_aims(figures), console)


def _leaving(row: dict[str, Any]) -> str:
    rate = row["most_bytes_per_s"]
    limit = "" if rate is None else f", {rate / 1e9:.0f} GB/s at most"
    return (
        f"blocks leave at {row['bytes_per_s'] / 1e9:.1f} GB/s ({row['max_bytes_in_flight'] >> 20} MiB under way at "
        f"most{limit}): a decode step of batch {row['batch_size']} takes {row['leaving_step_ms']:.3f} ms, else "
        f"{row['still_step_ms']:.3f}: {row['slowdown']:+.1%}"
    )


def _copies(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Within the GPU; the share is of the bytes that a plain copy reads and writes a second")
    for column in ("", "MiB", "µs", "GB/s", "share of copy"):
        table.add_column(column, justify="left" if not column else "right")
    for row in rows:
        table.add_row(
            row["what"],
            str(row["num_bytes"] >> 20),
            f"{row['seconds'] * 1e6:.0f}",
            f"{row['bytes_per_s'] / 1e9:.0f}",
            f"{row['share_of_copy']:.0%}",
        )
    return table
