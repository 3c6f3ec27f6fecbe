"""`baton bench engine`: decode throughput of the bare engine, beside transformers and vLLM if asked.

On a CPU all sides take turns, on the same weights, prompts and threads, so that a machine that is busy with something
else disturbs them alike. On a GPU the engine is measured beside what the device itself can do (`gpu_engine.py`).
"""

import json
import platform
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress

from cluster.model.decoder import Decoder
from cluster.model.device import DeviceUnavailable
from cluster.model.errors import CheckpointError
from cluster.model.kv_cache import KVCache
from cluster.model.load import DTYPES, load_model
from cluster.model.random_checkpoint import make_random_checkpoint
from cluster.model.runner import ModelRunner
from deploy.bench.device_rates import MemoryRate
from deploy.bench.engine_report import print_report
from deploy.bench.engine_summary import Lengths, Turn, summarise
from deploy.bench.engine_turns import (
    Prompts,
    Reference,
    TransformersReference,
    decode_stages,
    generate,
    products_s,
    torch_products_s,
)
from deploy.bench.vllm_side import find_vllm_python, vllm_reference
from deploy.errors import InputError, first_line
from deploy.profiling.device import cpu_name

BLOCK_SIZE = 16
MEASURED_BYTES = 256 << 20  # of memory, for its bandwidth: more than caches hold
DEFAULT_SHAPE: dict[str, Any] = {
    "hidden_size": 512,
    "intermediate_size": 1344,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 32_000,
}
"""54.5 million parameters, with random weights."""

Show = Callable[[str, int], None]
"""Hears what is at work, and of how many such turns there are."""


class Compared(StrEnum):
    TRANSFORMERS = "transformers"
    VLLM_CPU = "vllm-cpu"


def run(
    model_path: Path | None = None,
    *,
    batch_sizes: tuple[int, ...] = (1, 8, 32),
    num_prompt_tokens: int = 128,
    num_new_tokens: int = 64,
    num_repeats: int = 5,
    dtype: str = "float32",
    compare: Iterable[Compared] = (),
    vllm_python: Path | None = None,
    show: Show = lambda what, num_turns: None,
) -> dict[str, Any]:
    """Returns what `--json` writes.

    `model_path` None is a random model of `DEFAULT_SHAPE`. Raises `CheckpointError`, `DeployError` for a comparison
    that cannot be, and `ValueError` for lengths the model does not take.
    """
    lengths = Lengths(num_prompt_tokens=num_prompt_tokens, num_new_tokens=num_new_tokens)
    num_tokens = num_prompt_tokens + num_new_tokens
    with ExitStack() as stack:
        path = str(model_path or _random_checkpoint(stack))
        model = load_model(path, DTYPES[dtype])
        if num_tokens > model.config.max_model_len:
            raise ValueError(f"{num_tokens} tokens a sequence: the model takes {model.config.max_model_len}")
        others: dict[str, Reference] = {}
        for name in dict.fromkeys(compare):
            if name is Compared.TRANSFORMERS:
                others[name.value] = TransformersReference(path, DTYPES[dtype])
            else:
                python, limits = find_vllm_python(vllm_python), (max(batch_sizes), num_tokens)
                side = vllm_reference(python, path, dtype, max_num_seqs=limits[0], num_tokens=limits[1])
                others[name.value] = stack.enter_context(side)
        turns = _Turns(model, batch_sizes, lengths, others, show, num_repeats + 1)
        turns.run(batch_sizes)  # the first turns only warm up
        samples: dict[int, list[Turn]] = {size: [] for size in batch_sizes}
        for _ in range(num_repeats):
            for size, turn in turns.run(batch_sizes).items():
                samples[size].append(turn)
        versions = {name: other.version for name, other in others.items()}
    itemsize = DTYPES[dtype].itemsize
    shape = {"num_prompt_tokens": num_prompt_tokens, "num_new_tokens": num_new_tokens, "num_repeats": num_repeats}
    batches = [summarise(size, samples[size], lengths, model.config, itemsize) for size in batch_sizes]
    return {**_environment(model, model_path, dtype, versions), **shape, "batches": batches}


class _Turns:
    """All sides, each ready for its turn."""

    def __init__(
        self,
        model: Decoder,
        batch_sizes: tuple[int, ...],
        lengths: Lengths,
        others: dict[str, Reference],
        show: Show,
        num_rounds: int,
    ) -> None:
        self._num_new_tokens = lengths.num_new_tokens
        self._prompts = make_prompts(max(batch_sizes), lengths.num_prompt_tokens, model.config.vocab_size)
        num_tokens = lengths.num_prompt_tokens + lengths.num_new_tokens
        num_blocks = len(self._prompts) * -(-num_tokens // BLOCK_SIZE)
        self._runner = ModelRunner(model, KVCache(num_blocks, *model.kv_shape(BLOCK_SIZE), model.dtype))
        self._memory = MemoryRate(torch.device("cpu"), MEASURED_BYTES)
        self._others = others
        self._show = show
        self._num_turns = num_rounds * len(batch_sizes) * (2 + len(others))

    def run(self, batch_sizes: tuple[int, ...]) -> dict[int, Turn]:
        return {size: self._run(size) for size in batch_sizes}

    def _run(self, size: int) -> Turn:
        prompts, others = self._prompts[:size], {}
        self._show(f"batch {size}: engine", self._num_turns)
        engine = generate(self._runner, prompts, self._num_new_tokens)
        alone_s, torch_s = products_s(self._runner.model, size), torch_products_s(self._runner.model, size)
        bytes_per_s = self._memory.measure()
        for name, other in self._others.items():
            self._show(f"batch {size}: {name}", self._num_turns)
            others[name] = other.generate(prompts, self._num_new_tokens)
        self._show(f"batch {size}: stages", self._num_turns)
        stages_s = decode_stages(self._runner, prompts, self._num_new_tokens)
        return Turn(
            engine=engine,
            torch_products_s=torch_s,
            products_s=alone_s,
            stages_s=stages_s,
            bytes_per_s=bytes_per_s,
            others=others,
        )


def bench_engine(
    model: Annotated[
        Path | None, typer.Argument(help="Checkpoint directory; random weights if left out: 54.5M, or Llama-3-8B's.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    compare: Annotated[
        list[Compared] | None, typer.Option(help="Measure this beside the engine, in turns; may be repeated.")
    ] = None,
    batch_size: Annotated[
        list[int] | None, typer.Option(min=1, help="May be repeated; 1, 8 and 32 if left out, on a GPU 1, 16 and 64.")
    ] = None,
    prompt_tokens: Annotated[int | None, typer.Option(min=1, help="128 if left out, on a GPU 1024.")] = None,
    new_tokens: Annotated[int, typer.Option(min=2)] = 64,
    repeats: Annotated[int, typer.Option(min=1)] = 5,
    threads: Annotated[int, typer.Option(min=0, help="Threads for all sides; 0 is torch's default.")] = 0,
    dtype: Annotated[
        str | None, typer.Option(help="float32 or bfloat16; if left out the first, on a GPU the second.")
    ] = None,
    vllm_python: Annotated[
        Path | None, typer.Option(help="Of the environment that has vllm-cpu; else BATON_VLLM_PYTHON.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="On a GPU: a look in a minute, with few repeats.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Measures the bare engine: its decode throughput, beside others and beside what the machine can do."""
    is_gpu = device != "cpu"
    dtype = dtype or ("bfloat16" if is_gpu else "float32")
    if dtype not in DTYPES:
        raise typer.BadParameter(f"{dtype!r} is not one of {', '.join(DTYPES)}", param_hint="--dtype")
    if is_gpu and compare:
        raise typer.BadParameter("others are compared on a CPU only", param_hint="--compare")
    if threads:
        torch.set_num_threads(threads)
    lengths = {"num_prompt_tokens": prompt_tokens or (1024 if is_gpu else 128), "num_new_tokens": new_tokens}
    sizes = tuple(batch_size or ((1, 16, 64) if is_gpu else (1, 8, 32)))
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("loading", total=None)

        def show(what: str, num_turns: int) -> None:
            done = 0 if progress.tasks[0].total is None else progress.tasks[0].completed + 1
            progress.update(task, description=what, total=num_turns, completed=done)

        options: dict[str, Any] = {"batch_sizes": sizes, **lengths, "num_repeats": repeats, "dtype": dtype}
        try:
            if is_gpu:
                from deploy.bench.gpu_engine import run_on_gpu

                figures = run_on_gpu(device, model, **options, quick=quick, show=show)
            else:
                figures = run(model, **options, compare=compare or (), vllm_python=vllm_python, show=show)
        except DeviceUnavailable as error:
            raise typer.BadParameter(str(error), param_hint="--device") from error
        except torch.OutOfMemoryError as error:
            raise typer.BadParameter(f"out of memory: {first_line(error)}", param_hint="--device") from error
        except (CheckpointError, InputError, ValueError) as error:
            raise typer.BadParameter(str(error)) from error
    if json_file:
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    console = Console(width=None if Console().is_terminal else 140)
    if is_gpu:
        from deploy.bench.gpu_report import print_engine

        print_engine(figures, console)
    else:
        print_report(figures, console)


def make_prompts(num_prompts: int, num_tokens: int, vocab_size: int) -> Prompts:
    generator = torch.Generator().manual_seed(0)
    prompts: Prompts = torch.randint(vocab_size, (num_prompts, num_tokens), generator=generator).tolist()
    return prompts


def _random_checkpoint(stack: ExitStack) -> Path:
    return make_random_checkpoint(stack.enter_context(tempfile.TemporaryDirectory()), **DEFAULT_SHAPE)


def _environment(model: Decoder, path: Path | None, dtype: str, versions: dict[str, str]) -> dict[str, Any]:
    return {
        "model": str(path) if path else "random",
        "num_parameters": model.config.num_parameters,
        "dtype": dtype,
        "num_threads": torch.get_num_threads(),
        "cpu": cpu_name(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, **versions},
    }
