"""`baton bench engine`: decode throughput of the bare engine, beside transformers if asked.

All sides take turns in this one process, on the same weights, prompts and threads, and medians are reported: a machine
that is busy with something else disturbs them alike.
"""

import json
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cluster.model.decoder import Decoder
from cluster.model.errors import CheckpointError
from cluster.model.kv_cache import KVCache
from cluster.model.load import DTYPES, load_model
from cluster.model.random_checkpoint import make_random_checkpoint
from cluster.model.runner import ModelRunner
from deploy.bench.engine_turns import Generation, TransformersReference, generate, products_s
from deploy.profiling.device import cpu_name

BLOCK_SIZE = 16
DEFAULT_SHAPE: dict[str, Any] = {
    "hidden_size": 512,
    "intermediate_size": 1344,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 32_000,
}
"""54.5 million parameters, with random weights."""


class Compared(StrEnum):
    TRANSFORMERS = "transformers"


@dataclass(slots=True, kw_only=True)
class Samples:
    """What was measured at one batch size, repeat by repeat."""

    engine: list[Generation] = field(default_factory=list)
    products_s: list[float] = field(default_factory=list)
    reference: list[Generation] = field(default_factory=list)


def run(
    model_path: Path | None = None,
    *,
    batch_sizes: tuple[int, ...] = (1, 8, 32),
    num_prompt_tokens: int = 128,
    num_new_tokens: int = 64,
    num_repeats: int = 5,
    dtype: str = "float32",
    compare: Compared | None = None,
    show: Callable[[str, int], None] = lambda what, num_turns: None,
) -> dict[str, Any]:
    """Returns what `--json` writes; `show` hears what is at work, and of how many such turns there are.

    `model_path` None is a random model of `DEFAULT_SHAPE`. Raises `CheckpointError`, and `ValueError` for lengths the
    model does not take.
    """
    model, reference = _load(model_path, dtype, compare)
    num_tokens = num_prompt_tokens + num_new_tokens
    if num_tokens > model.config.max_model_len:
        raise ValueError(f"{num_tokens} tokens a sequence: the model takes {model.config.max_model_len}")
    prompts = _make_prompts(max(batch_sizes), num_prompt_tokens, model.config.vocab_size)
    num_blocks = len(prompts) * -(-num_tokens // BLOCK_SIZE)
    runner = ModelRunner(model, KVCache(num_blocks, *model.kv_shape(BLOCK_SIZE), model.dtype))
    samples = {size: Samples() for size in batch_sizes}
    num_turns = (num_repeats + 1) * len(batch_sizes) * (2 if reference else 1)
    for repeat in range(num_repeats + 1):
        for size in batch_sizes:
            turn = samples[size] if repeat else Samples()  # the first turns only warm up
            show(f"batch {size}: engine", num_turns)
            turn.engine.append(generate(runner, prompts[:size], num_new_tokens))
            turn.products_s.append(products_s(model, size))
            if reference:
                show(f"batch {size}: transformers", num_turns)
                turn.reference.append(reference.generate(prompts[:size], num_new_tokens))
    shape = {"num_prompt_tokens": num_prompt_tokens, "num_new_tokens": num_new_tokens, "num_repeats": num_repeats}
    batches = [_summarise(size, samples[size], num_prompt_tokens, num_new_tokens) for size in batch_sizes]
    return {**_environment(model, model_path, dtype, compare), **shape, "batches": batches}


def bench_engine(
    model: Annotated[
        Path | None, typer.Argument(help="Checkpoint directory; a random 54.5M Llama if left out.")
    ] = None,
    compare: Annotated[Compared | None, typer.Option(help="Measure this beside the engine, in turns.")] = None,
    batch_size: Annotated[
        list[int] | None, typer.Option(min=1, help="May be repeated; 1, 8 and 32 if left out.")
    ] = None,
    prompt_tokens: Annotated[int, typer.Option(min=1)] = 128,
    new_tokens: Annotated[int, typer.Option(min=2)] = 64,
    repeats: Annotated[int, typer.Option(min=1)] = 5,
    threads: Annotated[int, typer.Option(min=0, help="Threads for all sides; 0 is torch's default.")] = 0,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Measures the decode throughput of the bare engine."""
    if dtype not in DTYPES:
        raise typer.BadParameter(f"{dtype!r} is not one of {', '.join(DTYPES)}", param_hint="--dtype")
    if threads:
        torch.set_num_threads(threads)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("loading", total=None)

        def show(what: str, num_turns: int) -> None:
            done = 0 if progress.tasks[0].total is None else progress.tasks[0].completed + 1
            progress.update(task, description=what, total=num_turns, completed=done)

        try:
            figures = run(
                model,
                batch_sizes=tuple(batch_size or (1, 8, 32)),
                num_prompt_tokens=prompt_tokens,
                num_new_tokens=new_tokens,
                num_repeats=repeats,
                dtype=dtype,
                compare=compare,
                show=show,
            )
        except (CheckpointError, ValueError) as error:
            raise typer.BadParameter(str(error)) from error
    if json_file:
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    _print(figures)


def _load(path: Path | None, dtype: str, compare: Compared | None) -> tuple[Decoder, TransformersReference | None]:
    with tempfile.TemporaryDirectory() if path is None else nullcontext(str(path)) as directory:
        if path is None:
            make_random_checkpoint(directory, **DEFAULT_SHAPE)
        model = load_model(directory, DTYPES[dtype])
        return model, TransformersReference(directory, DTYPES[dtype]) if compare else None


def _make_prompts(num_prompts: int, num_tokens: int, vocab_size: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    prompts: list[list[int]] = torch.randint(vocab_size, (num_prompts, num_tokens), generator=generator).tolist()
    return prompts


def _summarise(size: int, samples: Samples, num_prompt_tokens: int, num_new_tokens: int) -> dict[str, Any]:
    """The first new token belongs to the prefill; all others are decode steps."""
    num_steps = num_new_tokens - 1

    def speeds(side: str, generations: list[Generation]) -> dict[str, float]:
        decode_s = statistics.median(generation.decode_s for generation in generations)
        prefill_s = statistics.median(generation.prefill_s for generation in generations)
        return {
            f"{side}decode_throughput": size * num_steps / decode_s,
            f"{side}decode_step_ms": 1000 * decode_s / num_steps,
            f"{side}prefill_throughput": size * num_prompt_tokens / prefill_s,
        }

    figures: dict[str, Any] = {"batch_size": size, **speeds("", samples.engine)}
    products_ms = 1000 * statistics.median(samples.products_s)
    figures |= {"weight_products_ms": products_ms, "weight_products_share": products_ms / figures["decode_step_ms"]}
    if samples.reference:
        figures |= speeds("transformers_", samples.reference)
        figures["decode_speedup"] = figures["decode_throughput"] / figures["transformers_decode_throughput"]
        figures["same_tokens"] = samples.engine[0].output_token_ids == samples.reference[0].output_token_ids
    return figures


def _environment(model: Decoder, path: Path | None, dtype: str, compare: Compared | None) -> dict[str, Any]:
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    if compare:
        versions["transformers"] = sys.modules["transformers"].__version__
    return {
        "model": str(path) if path else "random",
        "num_parameters": model.config.num_parameters,
        "dtype": dtype,
        "num_threads": torch.get_num_threads(),
        "cpu": cpu_name(),
        "versions": versions,
    }


def _print(figures: dict[str, Any]) -> None:
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    title = (
        f"{figures['model']} ({figures['num_parameters'] / 1e6:.1f}M parameters, {figures['dtype']}), "
        f"{figures['num_prompt_tokens']} prompt and {figures['num_new_tokens']} new tokens, "
        f"{figures['num_threads']} thread(s) on {figures['cpu']}; {versions}; medians of {figures['num_repeats']}"
    )
    table = Table("batch", "decode tok/s", "ms a step", "of it weight products", "prefill tok/s", title=title)
    compared = "decode_speedup" in figures["batches"][0]
    for name in ("transformers tok/s", "ratio", "same tokens") if compared else ():
        table.add_column(name)
    for batch in figures["batches"]:
        cells = [
            str(batch["batch_size"]),
            f"{batch['decode_throughput']:.1f}",
            f"{batch['decode_step_ms']:.2f}",
            f"{batch['weight_products_share']:.0%}",
            f"{batch['prefill_throughput']:.0f}",
        ]
        if compared:
            cells += [
                f"{batch['transformers_decode_throughput']:.1f}",
                f"{batch['decode_speedup']:.2f}",
                "yes" if batch["same_tokens"] else "no",
            ]
        table.add_row(*cells)
    Console().print(table)
