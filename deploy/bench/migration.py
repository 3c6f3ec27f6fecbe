"""`baton bench migration`: what a client notices when its request moves, beside blocking copy and recomputing.

Two pairs of instances on two cores: one moves requests live, one stops them first and copies then. The front is a bare
ledger with a stream to each (`migration_fleet`), so the gaps are those between step updates. All of it takes turns in
one run; every token is compared with those of an undisturbed run.
"""

import asyncio
import json
import os
import platform
import random
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from cluster.handshake import draw_secret
from cluster.model.random_checkpoint import make_random_checkpoint
from deploy.bench.engine import BLOCK_SIZE, DEFAULT_SHAPE
from deploy.bench.migration_fleet import Fleet, InstanceProcess, started
from deploy.bench.migration_instance import Job
from deploy.bench.migration_report import Row, aims, make_row, print_report
from deploy.bench.migration_row import NUM_OTHERS, RowBench, Samples, reference
from deploy.errors import DeployError
from deploy.profiling.device import cpu_name

NUM_TOKENS = (256, 512, 1024, 2048, 4096, 8192)
NUM_MOVES = 30
_NUM_OTHER_TOKENS = 128
_MAX_NUM_SEQS = 16


def bench_migration(
    num_tokens: Annotated[
        list[int] | None, typer.Option("--tokens", min=32, help="May be repeated; 256 to 8192 if left out.")
    ] = None,
    moves: Annotated[int, typer.Option(min=2, help="Of each kind and length.")] = NUM_MOVES,
    transport: Annotated[Literal["auto", "shm", "tcp"], typer.Option()] = "auto",
    pin: Annotated[bool, typer.Option(help="Each instance on a core of its own; for a machine that is idle.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures there, too.")] = None,
) -> None:
    """Moves requests of a random 54.5M model between instances: live, with decoding stopped, and by recomputing."""
    console = Console(width=None if Console().is_terminal else 120)
    lengths = sorted(num_tokens or NUM_TOKENS)
    figures = asyncio.run(_Bench(lengths, moves, transport, pin, console).run())
    print_report(figures["rows"], console)
    if json_file:
        json_file.write_text(json.dumps(figures, indent=2) + "\n")
    if not all(row["tokens_identical"] for row in figures["rows"]):
        raise DeployError("tokens differ from those of the undisturbed run")


class _Bench:
    def __init__(self, lengths: list[int], num_moves: int, transport: str, pin: bool, console: Console) -> None:
        self._lengths = lengths
        self._num_moves = num_moves
        self._transport = transport
        self._cores = sorted(os.sched_getaffinity(0))[:2]
        self._is_pinned = pin and len(self._cores) == 2
        self._console = console
        self._status = console.status("")
        self._secret = draw_secret()

    async def run(self) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as directory, self._status:
            self._say("making the model")
            max_model_len = 2 * max(self._lengths) + 2048
            make_random_checkpoint(directory, **DEFAULT_SHAPE, max_position_embeddings=max_model_len)
            self._say("starting four instances")
            async with started(self._jobs(directory, max_model_len)) as instances:
                fleet = Fleet(instances, self._secret)
                await fleet.connect()
                rows = await self._rows(fleet, instances)
                await fleet.close()
        return {**self._environment(), "rows": rows, "aims": aims(rows)}

    def _jobs(self, directory: str, max_model_len: int) -> list[Job]:
        num_tokens = 2 * max_model_len + NUM_OTHERS * 8192
        return [self._job(name, directory, num_tokens) for name in "abcd"]

    def _job(self, name: str, directory: str, num_kv_tokens: int) -> Job:
        return Job(
            name=name,
            secret=self._secret.value.hex(),
            model_path=directory,
            core=self._cores["abcd".index(name) % 2] if self._is_pinned else None,
            raw_blocks=2 * max(self._lengths) // BLOCK_SIZE,
            engine={
                "kv_cache_memory_bytes": num_kv_tokens * _bytes_per_token(),
                "enable_prefix_caching": False,  # a request that comes back is to bring its blocks again
                "num_threads": 1,
                "max_num_seqs": _MAX_NUM_SEQS,
            },
            links={"transport": self._transport},
            handover={} if name in "ab" else {"max_stages": 0},
        )

    async def _rows(self, fleet: Fleet, instances: list[InstanceProcess]) -> list[Row]:
        every = [Samples(num_tokens=length, prompt=_prompt(length, length)) for length in self._lengths]
        for samples in every:
            others = [_prompt(_NUM_OTHER_TOKENS, seed) for seed in range(NUM_OTHERS)]
            await RowBench(fleet, samples, self._num_moves, self._show(samples)).run(others)
            self._console.print(f"{samples.num_tokens} tokens: {len(samples.live)} moved live", highlight=False)
        self._say("the same, undisturbed")
        undisturbed = await self._references(fleet, every)
        record_bytes = instances[0].record_bytes
        return [make_row(samples, right, record_bytes) for samples, right in zip(every, undisturbed, strict=True)]

    async def _references(self, fleet: Fleet, every: list[Samples]) -> list[list[int]]:
        """Two at a time, one in each process of a pair, so never two in one batch."""

        async def at(name: str, mine: list[Samples]) -> list[list[int]]:
            return [
                await reference(fleet, samples.prompt, name, max(map(len, samples.segments), default=0))
                for samples in mine
            ]

        *most, longest = every
        first, second = await asyncio.gather(at("c", most), at("d", [longest]))
        return [*first, *second]

    def _show(self, samples: Samples) -> Any:
        def show(what: str) -> None:
            counts = f"{len(samples.live)} live, {len(samples.busy)} to a busy instance"
            self._say(f"{samples.num_tokens} tokens: {what}; {counts}")

        return show

    def _say(self, what: str) -> None:
        self._status.update(what)

    def _environment(self) -> dict[str, Any]:
        return {
            "model": "random 54.5M, float32",
            "transport": self._transport,
            "num_cores": len(os.sched_getaffinity(0)),
            "is_pinned": self._is_pinned,
            "cpu": cpu_name(),
            "versions": {"python": platform.python_version(), **{it: version(it) for it in ("torch", "grpcio")}},
        }


def _bytes_per_token() -> int:
    head_bytes = 4 * DEFAULT_SHAPE["hidden_size"] // DEFAULT_SHAPE["num_attention_heads"]
    return int(2 * DEFAULT_SHAPE["num_hidden_layers"] * DEFAULT_SHAPE["num_key_value_heads"] * head_bytes)


def _prompt(num_tokens: int, seed: int) -> tuple[int, ...]:
    draw = random.Random(seed)
    return tuple(draw.randrange(DEFAULT_SHAPE["vocab_size"]) for _ in range(num_tokens))
