"""`baton profile`: how long the engine's steps take on the device at hand, as a file to simulate and to plan by."""

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from deploy.profiling.profile import Profile, ProfileOptions

_SHOWN = 5
_KINDS = {"prefill": "prompts", "chunk": "later chunks", "decode": "decodes", "mixed": "both (not fitted)"}


def add_to(app: typer.Typer) -> None:
    app.command()(profile)


def profile(
    model: Annotated[
        Path | None, typer.Argument(help="Checkpoint directory; a random 54.5M Llama if left out.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write YAML there; default: stdout.")] = None,
    threads: Annotated[int, typer.Option(min=0, help="Of an instance; 0 is torch's default.")] = 0,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    kv_cache_memory: Annotated[str, typer.Option(metavar="SIZE", help="Of an instance, such as 256MiB.")] = "256MiB",
    max_prompt_tokens: Annotated[int, typer.Option(min=64, help="The longest prompt that is timed.")] = 2048,
    max_batch: Annotated[int, typer.Option(min=4, help="The most sequences that decode together.")] = 32,
    repeats: Annotated[int, typer.Option(min=1, help="Timings of each step; their lower quartile counts.")] = 7,
) -> None:
    """Time the steps of the real engine here, fit a latency model to them, and show what it does not explain."""
    # As instances do before torch is loaded: threads that wait do not spin.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from cluster.model.errors import CheckpointError
    from deploy.errors import InputError
    from deploy.output_files import check_output
    from deploy.profiling.profile import ProfileOptions

    check_output("--output", output)
    options = ProfileOptions(
        dtype=_dtype(dtype),
        num_threads=threads,
        kv_cache_memory_bytes=_size(kv_cache_memory),
        max_prompt_tokens=max_prompt_tokens,
        max_batch=max_batch,
        num_repeats=repeats,
    )
    try:
        found = _measure_model(model, options)
    except (CheckpointError, ValueError) as error:
        raise InputError(str(error)) from error
    _show(found)
    _write(found, output)


def _dtype(name: str) -> str:
    from cluster.model.load import DTYPES

    if name not in DTYPES:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(DTYPES)}", param_hint="--dtype")
    return name


def _size(text: str) -> int:
    from cluster.spec.quantity import parse_bytes

    try:
        return int(str(parse_bytes(text)))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--kv-cache-memory") from error


def _measure_model(model: Path | None, options: "ProfileOptions") -> "Profile":
    from cluster.model.random_checkpoint import make_random_checkpoint
    from deploy.bench.engine import DEFAULT_SHAPE

    if model is not None:
        return _measure(model, options)
    with tempfile.TemporaryDirectory() as directory:
        return _measure(make_random_checkpoint(Path(directory) / "random-54m", **DEFAULT_SHAPE), options)


def _measure(checkpoint: Path, options: "ProfileOptions") -> "Profile":
    from rich.console import Console
    from rich.progress import Progress

    from deploy.profiling.profile import profile

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("timing steps", total=None)
        shown = 0

        def show(done: int, total: int) -> None:
            nonlocal shown
            progress.update(task, completed=done, total=total)
            if not console.is_terminal and done * 10 // total > shown:
                shown = done * 10 // total
                print(f"{done} of {total} steps timed", file=sys.stderr, flush=True)

        return profile(checkpoint, options, show)


def _show(found: "Profile") -> None:
    """Beside the file, which may go to stdout."""
    from rich.console import Console

    console = Console(stderr=True, width=None if sys.stderr.isatty() else 120)
    console.print(_residuals(found))
    console.print(_worst(found))


def _residuals(found: "Profile") -> "Table":
    from rich.table import Table

    table = Table("steps", "timed", "median", "90 %", "largest", title="|model - measured| / measured", box=None)
    for kind, residuals in found.hardware.residuals.items():
        errors = (f"{error:.1%}" for error in (residuals.median, residuals.p90, residuals.largest))
        table.add_row(_KINDS[kind], str(residuals.num_steps), *errors)
    return table


def _worst(found: "Profile") -> "Table":
    from rich.table import Table

    table = Table("steps", "prompt tokens", "decodes", "context", "measured", "model", title="Furthest off", box=None)
    model = found.hardware.coefficients
    rows = [
        (sum(model.stages_s(step.shape)) / step.seconds - 1.0, kind, step)
        for kind, steps in found.steps.items()
        for step in steps
    ]
    for error, kind, step in sorted(rows, key=lambda row: -abs(row[0]))[:_SHOWN]:
        shape = step.shape
        counts = (str(n or "-") for n in (shape.num_prefill_tokens, shape.num_decodes, shape.decode_context))
        table.add_row(_KINDS[kind], *counts, f"{step.seconds * 1e3:.2f} ms", f"{error:+.1%}")
    return table


def _write(found: "Profile", output: Path | None) -> None:
    from cluster.latency.write import format_fitted

    text = format_fitted(found.hardware)
    if output is None:
        print(text, end="")
    else:
        output.write_text(text)
