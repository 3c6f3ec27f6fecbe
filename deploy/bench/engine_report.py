"""The tables of `baton bench engine` on a CPU."""

from typing import Any

from rich.console import Console
from rich.table import Table

from deploy.bench.engine_summary import missed


def print_report(figures: dict[str, Any], console: Console) -> None:
    console.print(_title(figures), highlight=False)
    console.print(_speeds(figures["batches"]))
    console.print(_stages(figures["batches"]))
    for line in missed(figures["batches"]):
        console.print(f"missed: {line}", highlight=False, markup=False)


def _title(figures: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    return (
        f"{figures['model']} ({figures['num_parameters'] / 1e6:.1f}M parameters, {figures['dtype']}), "
        f"{figures['num_prompt_tokens']} prompt and {figures['num_new_tokens']} new tokens, "
        f"{figures['num_threads']} thread(s) on {figures['cpu']}; {versions}; medians of {figures['num_repeats']}"
    )


def _speeds(batches: list[dict[str, Any]]) -> Table:
    """One row for the engine at each batch size, and one for each of the others."""
    title = "Decode; beside a step its bytes alone, and its products alone, by torch and by its own means"
    table = Table(title=title)
    for column in ("batch", "", "tok/s", "ms a step", "bytes ms", "torch ms", "binds", "share", "own ms", "of own"):
        table.add_column(column, justify="left" if column in ("", "binds") else "right")
    for column in ("engine is", "same tokens", "prefill tok/s"):
        table.add_column(column, justify="right")
    for batch in batches:
        table.add_row(
            str(batch["batch_size"]),
            "engine",
            *_own(batch),
            f"{batch['step_bytes_ms']:.2f}",
            f"{batch['torch_products_ms']:.2f}",
            batch["bound"],
            f"{batch['share_of_bound']:.0%}",
            f"{batch['own_products_ms']:.2f}",
            f"{batch['share_of_own']:.0%}",
            "",
            "",
            f"{batch['prefill_throughput']:.0f}",
        )
        for name, other in batch["compared"].items():
            same = "yes" if other["same_tokens"] else "no"
            ratio = f"{other['decode_speedup']:.2f} ×"
            table.add_row("", name, *_own(other), *[""] * 6, ratio, same, f"{other['prefill_throughput']:.0f}")
    return table


def _own(speeds: dict[str, Any]) -> tuple[str, str]:
    return f"{speeds['decode_throughput']:.1f}", f"{speeds['decode_step_ms']:.2f}"


def _stages(batches: list[dict[str, Any]]) -> Table:
    """All of a step; where a stage has products with weights, how long these take alone stands behind it.

    Nothing stands for a stage that is part of another there.
    """
    sizes = [batch["batch_size"] for batch in batches]
    table = Table(title="Where a decode step goes, ms (of it products with the weights, alone)")
    table.add_column("stage")
    for size in sizes:
        table.add_column(f"batch {size}", justify="right")
    for rows in zip(*(batch["stages"] for batch in batches), strict=True):
        if any(row["ms"] for row in rows):
            table.add_row(rows[0]["stage"], *(_cell(row["ms"], row["products_ms"]) for row in rows))
    sums = [[sum(row[key] for row in batch["stages"]) for key in ("ms", "products_ms")] for batch in batches]
    table.add_section()
    table.add_row("all, with the timing's cost", *(_cell(*each) for each in sums))
    return table


def _cell(milliseconds: float, products_ms: float) -> str:
    own = f"{milliseconds:.2f}" if milliseconds else ""
    return own + (f" ({products_ms:.2f})" if products_ms else "")
