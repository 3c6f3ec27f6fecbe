"""How much slower an engine decodes while blocks leave it, within the budget that live moves have by default.

Without a second GPU blocks leave for host memory, which the GPU's copy engine reads as a network card would: packed by
the link's kernel, with checksums, as many pieces at a time as the pacer allows.
"""

import random
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from statistics import median
from time import monotonic, perf_counter
from typing import Any

import torch

from cluster.engine.engine import Engine
from cluster.instance.config import HandoverConfig
from cluster.instance.pacer import PIECES_PER_LINK, Pacer, Piece
from cluster.links.nccl_device import Event
from deploy.bench.gpu_link_figures import slowdown
from deploy.bench.gpu_migration import Side
from deploy.bench.gpu_turns import step_times
from deploy.bench.links_peer import EPOCH, RECEIVER

RATE_WAIT_S = 0.001

_torch_stream: Any = torch.cuda.ExternalStream


class HostOutlet:
    """Pieces on their way to host memory, each by a stream and through staging of its own."""

    def __init__(self, side: Side, piece_bytes: int) -> None:
        side.links.bind()
        self._side, self._is_gpu = side, side.kv_cache.tensor.device.type == "cuda"
        num_bytes = max(piece_bytes, side.kv_cache.record_bytes)
        self._lanes = [_Lane(side, num_bytes) for _ in range(PIECES_PER_LINK)]
        self._next = 0
        self._checksums = side.links.checksummer(side.pointer, side.kv_cache.record_bytes)

    def bind(self) -> None:
        """For the thread that calls from here on."""
        self._side.links.bind()
        if self._is_gpu:
            torch.cuda.set_device(self._side.kv_cache.tensor.device)

    def start(self, block_ids: Sequence[int]) -> Event:
        """Complete when all has left."""
        lane, self._next = self._lanes[self._next], (self._next + 1) % len(self._lanes)
        side, links, record_bytes = self._side, self._side.links, self._side.kv_cache.record_bytes
        self._checksums(block_ids)
        lane.ids = links.upload(block_ids, lane.stream)
        links.pack(side.pointer, lane.ids.pointer, len(block_ids), record_bytes, lane.staging.data_ptr(), lane.stream)
        if not self._is_gpu:
            links.synchronize(links.record(lane.stream))
        size = len(block_ids) * record_bytes
        with torch.cuda.stream(_torch_stream(lane.stream.ptr)) if self._is_gpu else nullcontext():
            lane.host[:size].copy_(lane.staging[:size], non_blocking=True)
        return links.record(lane.stream)

    def wait(self, event: Event) -> None:
        self._side.links.synchronize(event)


class _Lane:
    def __init__(self, side: Side, num_bytes: int) -> None:
        device = side.kv_cache.tensor.device
        self.stream = side.links.make_stream()
        self.staging = torch.empty(num_bytes, dtype=torch.uint8, device=device)
        self.host = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self.ids: Any = None


@dataclass(slots=True)
class Left:
    """What left, and in what time."""

    num_bytes: int = 0
    seconds: float = 0.0


@contextmanager
def leaving(side: Side, outlet: HostOutlet, config: HandoverConfig) -> Iterator[Left]:
    """Blocks leave until this ends, from a thread as a link's; what it raises is raised here."""
    left, stopped, errors = Left(), threading.Event(), []
    sender = _Sender(side, outlet, config)

    def send() -> None:
        try:
            outlet.bind()
            while True:
                num_bytes = sender.send()
                left.num_bytes += num_bytes
                if stopped.is_set():
                    break
                if not num_bytes:  # the rate allows nothing now
                    stopped.wait(RATE_WAIT_S)
            left.num_bytes += sender.finish()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=send, name="leaving blocks", daemon=True)
    start = perf_counter()
    thread.start()
    try:
        yield left
    finally:
        stopped.set()
        thread.join()
        left.seconds = perf_counter() - start
    if errors:
        raise errors[0]


class _Sender:
    """Asks the pacer, as an instance does that moves one large request after another."""

    def __init__(self, side: Side, outlet: HostOutlet, config: HandoverConfig) -> None:
        self._record_bytes, self._outlet = side.kv_cache.record_bytes, outlet
        self._pacer = Pacer(config.max_bytes_in_flight, config.bytes_per_s, config.piece_bytes)
        num_blocks = side.kv_cache.num_blocks
        self._order = random.Random(0).sample(range(num_blocks), num_blocks)
        self._under_way: deque[tuple[Piece, Event]] = deque()
        self._num_waiting = self._num_requests = 0

    def send(self) -> int:
        """Starts what may leave now, waits for the oldest, and returns its bytes."""
        if not self._num_waiting:
            self._put_request()
        for piece in self._pacer.take(monotonic()):
            self._num_waiting -= piece.num_blocks
            block_ids = self._order[piece.first_block : piece.first_block + piece.num_blocks]
            self._under_way.append((piece, self._outlet.start(block_ids)))
        return self._wait() if self._under_way else 0

    def finish(self) -> int:
        """Waits for all that is under way, and returns its bytes."""
        num_bytes = 0
        while self._under_way:
            num_bytes += self._wait()
        return num_bytes

    def _wait(self) -> int:
        piece, event = self._under_way.popleft()
        self._outlet.wait(event)
        self._pacer.ended(piece.request_id, piece.epoch, piece.first_block)
        return piece.num_bytes

    def _put_request(self) -> None:
        """It has all blocks there are."""
        self._num_requests += 1
        self._num_waiting = len(self._order)
        self._pacer.put(
            Piece(
                request_id=f"bench-{self._num_requests}",
                epoch=EPOCH,
                receiver=RECEIVER,
                reservation=1,
                first_block=0,
                num_blocks=len(self._order),
                num_bytes=len(self._order) * self._record_bytes,
            )
        )


def measure_leaving(
    engine: Engine, side: Side, config: HandoverConfig, num_steps: int, num_rounds: int
) -> dict[str, Any]:
    """Rounds of steps: undisturbed, while blocks leave, undisturbed again."""
    outlet = HostOutlet(side, config.piece_bytes)
    still: list[tuple[float, float]] = []
    moving: list[float] = []
    rates: list[float] = []
    for _ in range(num_rounds):
        before = median(step_times(engine, num_steps))
        with leaving(side, outlet, config) as left:
            moving.append(median(step_times(engine, num_steps)))
        still.append((before, median(step_times(engine, num_steps))))
        rates.append(left.num_bytes / left.seconds)
    return {
        "still_step_ms": 1000 * median(each for pair in still for each in pair),
        "leaving_step_ms": 1000 * median(moving),
        "slowdown": slowdown(still, moving),
        "bytes_per_s": median(rates),
        "most_bytes_per_s": config.bytes_per_s,
        "max_bytes_in_flight": config.max_bytes_in_flight,
        "piece_bytes": config.piece_bytes,
    }
