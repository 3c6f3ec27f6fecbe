"""`baton bench links`: our links between two processes of this machine, beside the plain means to move the same bytes.

All contestants take turns within every round, so that what else the machine does falls on all of them; the ratios are
medians of the ratios within a round.
"""

import json
import multiprocessing
import os
import queue
import random
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cluster.handshake import draw_secret
from cluster.links.config import LinkConfig, Transport
from cluster.links.frame_socket import size_buffers
from cluster.links.kv_region import KvRegion
from cluster.links.nccl import CupyDevice
from cluster.links.nccl_device import NcclUnavailable
from cluster.links.outgoing_links import OutgoingLinks
from cluster.links.shared_region import SharedRegion
from cluster.messages import BlockTransfer
from deploy.bench.links_peer import EPOCH, RECEIVER, SOURCE, serve
from deploy.bench.nccl_links import REFERENCES as NCCL_REFERENCES
from deploy.bench.nccl_links import NcclContest, timing_note
from deploy.errors import first_line

SIZES = (64 << 10, 1 << 20, 16 << 20, 64 << 20)
WARM_UP_ROUNDS = 2
SMALL_REPEATS = 9  # of what is small, in a row: such a figure is the median of these
SMALL_BYTES = 1 << 20
# Contestant -> what it is measured against.
REFERENCES = {
    "memcpy": "memcpy",
    "shared memory": "memcpy",
    "shm link": "shared memory",
    "shm link, no checksums": "shared memory",
    "raw tcp": "raw tcp",
    "tcp link": "raw tcp",
    "tcp link, no checksums": "raw tcp",
}


class Contest:
    """The source's side: one method per contestant, each moves `num_bytes` and returns the seconds it took."""

    def __init__(self, record_bytes: int, stack: ExitStack) -> None:
        num_bytes = max(SIZES)
        memory = SharedRegion.create(num_bytes)
        memory.buffer[:] = os.urandom(num_bytes)
        self._memory = memory.buffer
        self._copy = memoryview(bytearray(num_bytes))
        self._region = KvRegion(memory.buffer, record_bytes, memory.path)
        self._outcomes: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._secret = draw_secret()
        context = multiprocessing.get_context("spawn")
        self._control, theirs = context.Pipe()
        peer = context.Process(
            target=serve, args=(theirs, self._secret, memory.path, num_bytes, record_bytes), daemon=True
        )
        peer.start()
        stack.callback(peer.join)
        stack.callback(self._control.send, ("end", None))
        self._address, raw_address = self._control.recv()
        self._raw = stack.enter_context(socket.create_connection(raw_address))
        size_buffers(self._raw)
        self._links = {
            (transport, checksum): self._make_links(transport, checksum, stack)
            for transport in ("shm", "tcp")
            for checksum in (True, False)
        }
        self._random = random.Random(0)

    @property
    def contestants(self) -> dict[str, Callable[[int], float]]:
        return {
            "memcpy": self._memcpy,
            "shared memory": self._shared_memory,
            "shm link": lambda num_bytes: self._link("shm", True, num_bytes),
            "shm link, no checksums": lambda num_bytes: self._link("shm", False, num_bytes),
            "raw tcp": self._raw_tcp,
            "tcp link": lambda num_bytes: self._link("tcp", True, num_bytes),
            "tcp link, no checksums": lambda num_bytes: self._link("tcp", False, num_bytes),
        }

    def on_sent(self, transfer: BlockTransfer) -> None:
        self._outcomes.put("")

    def on_send_failed(self, transfer: BlockTransfer, reason: str) -> None:
        self._outcomes.put(reason)

    def _make_links(self, transport: Transport, checksum: bool, stack: ExitStack) -> OutgoingLinks:
        config = LinkConfig(transport=transport, checksum=checksum)
        links = OutgoingLinks(SOURCE, self._region, config, self, secret=self._secret)
        stack.callback(links.close)
        return links

    def _memcpy(self, num_bytes: int) -> float:
        source, target = self._window(num_bytes), self._window(num_bytes)
        start_s = time.perf_counter()
        self._copy[target] = self._memory[source]
        return time.perf_counter() - start_s

    def _shared_memory(self, num_bytes: int) -> float:
        self._tell("shared memory", (self._window(num_bytes), self._window(num_bytes)))
        start_s = time.perf_counter()
        self._control.send_bytes(b"go")
        self._control.recv_bytes()
        return time.perf_counter() - start_s

    def _raw_tcp(self, num_bytes: int) -> float:
        self._tell("raw tcp", self._window(num_bytes))
        source = self._window(num_bytes)
        start_s = time.perf_counter()
        self._raw.sendall(self._memory[source])
        self._raw.recv(1)
        return time.perf_counter() - start_s

    def _link(self, transport: str, checksum: bool, num_bytes: int) -> float:
        """Both sides' blocks lie in random order, as in an old instance; checksums are there since the sealing."""
        num_blocks = num_bytes // self._region.record_bytes
        source_ids, target_ids = (self._random.sample(range(len(self._region.records)), num_blocks) for _ in "st")
        transfer = BlockTransfer(
            request_id="bench",
            epoch=EPOCH,
            reservation=1,
            first_block=0,
            block_ids=tuple(source_ids),
            checksums=self._region.checksums(source_ids) if checksum else (),
        )
        self._tell("open", (1, target_ids))
        start_s = time.perf_counter()
        self._links[transport, checksum].send(self._address, RECEIVER, transfer)
        if reason := self._outcomes.get():
            raise RuntimeError(f"{transport} link: {reason}")
        return time.perf_counter() - start_s

    def _window(self, num_bytes: int) -> slice:
        """Contiguous, but anywhere: what small transfers find in the cache is the same for all contestants."""
        start = self._random.randrange(0, len(self._memory) - num_bytes + 1, self._region.record_bytes)
        return slice(start, start + num_bytes)

    def _tell(self, command: str, argument: Any) -> None:
        self._control.send((command, argument))
        self._control.recv_bytes()


def measure(record_bytes: int, rounds: int, *, nccl: bool = False) -> dict[str, dict[int, list[float]]]:
    """Seconds by contestant and size, one per round. Raises NcclUnavailable where `nccl` asks for GPUs in vain."""
    sizes = [size for size in SIZES if size % record_bytes == 0]
    seconds: dict[str, dict[int, list[float]]] = {name: {size: [] for size in sizes} for name in _references(nccl)}
    with ExitStack() as stack:
        contest = NcclContest(record_bytes, max(SIZES), stack) if nccl else Contest(record_bytes, stack)
        for turn in range(-WARM_UP_ROUNDS, rounds):
            for size in sizes:
                for name, move in contest.contestants.items():
                    repeats = SMALL_REPEATS if size <= SMALL_BYTES else 1
                    took_s = median(move(size) for _ in range(repeats))
                    if turn >= 0:
                        seconds[name][size].append(took_s)
    return seconds


def _references(nccl: bool) -> dict[str, str]:
    return NCCL_REFERENCES if nccl else REFERENCES


def summarize(seconds: dict[str, dict[int, list[float]]], *, nccl: bool = False) -> list[dict[str, Any]]:
    """One row per contestant and size; `ratio` is its bandwidth over its reference's."""
    rows = []
    for name, reference in _references(nccl).items():
        for size, mine in seconds[name].items():
            ratio = median(theirs / own for theirs, own in zip(seconds[reference][size], mine, strict=True))
            row = {"contestant": name, "num_bytes": size, "median_s": median(mine), "best_s": min(mine)}
            rows.append({**row, "bytes_per_s": size / median(mine), "reference": reference, "ratio": ratio})
    return rows


def bench_links(
    rounds: Annotated[int, typer.Option(help="How often each contestant moves each size.")] = 15,
    record_bytes: Annotated[int, typer.Option(help="Size of one KV block.")] = 64 << 10,
    nccl: Annotated[bool, typer.Option("--nccl", help="Between two GPUs, or two processes on one, instead.")] = False,
    device: Annotated[str, typer.Option(help="cuda: what links do on a GPU instead, and a migration there.")] = "cpu",
    quick: Annotated[bool, typer.Option("--quick", help="On a GPU: a look, with few repeats.")] = False,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the figures there, too.")] = None,
) -> None:
    """Moves 64 KiB to 64 MiB between two processes: links with and without checksums, plain copies and raw sockets."""
    if device != "cpu":
        if nccl:
            raise typer.BadParameter("measures between two processes, --device within one", param_hint="--nccl")
        _bench_on_gpu(device, rounds, quick, json_path)
        return
    if record_bytes <= 0 or max(SIZES) % record_bytes:
        raise typer.BadParameter(f"{record_bytes} does not divide {max(SIZES)}", param_hint="--record-bytes")
    try:
        rows = summarize(measure(record_bytes, rounds, nccl=nccl), nccl=nccl)
    except NcclUnavailable as error:
        raise typer.BadParameter(f"no links over NCCL here: {error}", param_hint="--nccl") from error
    table = Table(title=f"Two processes, blocks of {record_bytes >> 10} KiB, medians of {rounds} interleaved rounds")
    for column in ("contestant", "KiB", "best µs", "µs", "GB/s", "of", "ratio"):
        table.add_column(column, justify="left" if column in ("contestant", "of") else "right", no_wrap=True)
    for row in rows:
        figures = (f"{row['best_s'] * 1e6:.0f}", f"{row['median_s'] * 1e6:.0f}", f"{row['bytes_per_s'] / 1e9:.2f}")
        table.add_row(row["contestant"], str(row["num_bytes"] >> 10), *figures, row["reference"], f"{row['ratio']:.2f}")
    Console(width=100).print(table)
    if nccl and (note := timing_note(CupyDevice(0).num_devices)):
        Console().print(note)
    _write_json(json_path, {"record_bytes": record_bytes, "rounds": rounds, "rows": rows})


def _bench_on_gpu(device: str, rounds: int, quick: bool, json_path: Path | None) -> None:
    from torch import OutOfMemoryError

    from cluster.model.device import DeviceUnavailable
    from deploy.bench.gpu_links import run_links_on_gpu
    from deploy.bench.gpu_report import print_links

    console = Console(stderr=True)
    try:
        with console.status("") as status:
            figures = run_links_on_gpu(device, num_rounds=rounds, quick=quick, show=status.update)
    except (DeviceUnavailable, NcclUnavailable) as error:
        raise typer.BadParameter(str(error), param_hint="--device") from error
    except OutOfMemoryError as error:
        raise typer.BadParameter(f"out of memory: {first_line(error)}", param_hint="--device") from error
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--rounds") from error
    _write_json(json_path, figures)
    print_links(figures, Console(width=None if Console().is_terminal else 140))


def _write_json(path: Path | None, figures: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(bench_links)
