"""Requests that move from one engine on a GPU to another one, all their KV with them: the tokens stay the same.

With two GPUs blocks go over an NCCL link, as between instances. With one they are packed and unpacked by the link's
own kernels: two ranks of NCCL on one GPU are `baton bench links --nccl`'s.
"""

import queue
from collections.abc import Sequence as List
from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

import torch

from cluster.engine.block_manager import BlockManager
from cluster.engine.engine import Engine
from cluster.engine.sampling_params import SamplingParams
from cluster.engine.scheduler import Scheduler, SchedulerConfig
from cluster.engine.sequence import Sequence, SequenceStatus
from cluster.handshake import draw_secret
from cluster.links.config import LinkConfig
from cluster.links.device_region import DeviceRegion
from cluster.links.link_listener import LinkListener
from cluster.links.nccl_device import NcclDevice
from cluster.links.outgoing_links import OutgoingLinks
from cluster.links.slot_table import SlotTable
from cluster.messages import BlockTransfer
from cluster.model.device import use_device
from cluster.model.kv_cache import KVCache
from cluster.model.runner import ModelRunner
from deploy.bench.engine_turns import Prompts
from deploy.bench.links_peer import EPOCH, RECEIVER, SOURCE, Quiet
from deploy.bench.stopwatch import wait
from deploy.errors import DeployError

PATIENCE_S = 120.0  # a first communicator loads NCCL's kernels
RESERVATION = 1


class Mover(Protocol):
    def move(self, source_ids: List[int], target_ids: List[int]) -> None:
        """These blocks' content is at the target's when it returns."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """An engine's KV, and the device that it is on, as links see it and as torch does."""

    kv_cache: KVCache
    links: NcclDevice

    @property
    def pointer(self) -> int:
        return self.kv_cache.tensor.data_ptr()

    def region(self) -> DeviceRegion:
        self.links.bind()
        return DeviceRegion(
            self.links,
            pointer=self.pointer,
            record_bytes=self.kv_cache.record_bytes,
            num_records=self.kv_cache.num_blocks,
            checksums=self.links.checksummer(self.pointer, self.kv_cache.record_bytes),
        )


class LocalMover:
    """Between two caches on one device."""

    def __init__(self, source: Side, target: Side) -> None:
        self._source, self._target = source, target
        source.links.bind()
        self._stream = source.links.make_stream()

    def move(self, source_ids: List[int], target_ids: List[int]) -> None:
        cache, links, count = self._source.kv_cache, self._source.links, len(source_ids)
        wait(cache.tensor.device)
        staging = links.allocate(count * cache.record_bytes)
        ids = [links.upload(each, self._stream) for each in (source_ids, target_ids)]
        shape = count, cache.record_bytes, staging.pointer, self._stream
        links.pack(self._source.pointer, ids[0].pointer, *shape)
        links.unpack(self._target.pointer, ids[1].pointer, *shape)
        links.synchronize(links.record(self._stream))


class LinkedMover:
    """Over a link, with checksums, within this process. Raises DeployError."""

    def __init__(self, source: Side, target: Side, stack: ExitStack) -> None:
        config, secret = LinkConfig(transfer_timeout_s=PATIENCE_S), draw_secret()
        self._region, self._slots = source.region(), SlotTable(lambda reservation: None)
        self._outcomes: queue.SimpleQueue[str] = queue.SimpleQueue()
        listener = LinkListener(
            RECEIVER, target.region(), self._slots, config, Quiet(), secret=secret, host="127.0.0.1"
        )
        stack.callback(listener.close)
        self._address = listener.address
        self._links = OutgoingLinks(SOURCE, self._region, config, self, secret=secret)
        stack.callback(self._links.close)

    def move(self, source_ids: List[int], target_ids: List[int]) -> None:
        self.send(source_ids, target_ids)
        if reason := self._outcomes.get(timeout=2 * PATIENCE_S):
            raise DeployError(f"nccl link: {reason}")

    def send(self, source_ids: List[int], target_ids: List[int]) -> None:
        self._slots.close(RESERVATION)
        self._slots.open(RESERVATION, SOURCE, EPOCH, target_ids, 0)
        transfer = BlockTransfer(
            request_id="bench",
            epoch=EPOCH,
            reservation=RESERVATION,
            first_block=0,
            block_ids=tuple(source_ids),
            checksums=self._region.checksums(source_ids),
        )
        self._links.send(self._address, RECEIVER, transfer)

    def on_sent(self, transfer: BlockTransfer) -> None:
        self._outcomes.put("")

    def on_send_failed(self, transfer: BlockTransfer, reason: str) -> None:
        self._outcomes.put(reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """`stall_s`: from when the requests stood still until all had their next token, over there.

    `has_same_kv`: of each request, whether what it came with is byte for byte what it left with.
    """

    output_token_ids: list[list[int]]
    has_same_kv: list[bool]
    stall_s: float
    num_bytes: int


def make_engine(runner: ModelRunner, max_num_seqs: int, num_batched_tokens: int) -> Engine:
    cache = runner.kv_cache
    config = SchedulerConfig(
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=num_batched_tokens,
        watermark_blocks=0,
        max_model_len=cache.num_tokens,
    )
    manager = BlockManager(cache.num_blocks, cache.block_size, enable_prefix_caching=False)
    return Engine(Scheduler(config, manager), runner)


def run_undisturbed(runner: ModelRunner, prompts: Prompts, num_tokens: int) -> list[list[int]]:
    engine, sequences = _started(runner, prompts, num_tokens)
    _be_at(runner)
    while engine.scheduler.has_work:
        engine.step()
    return [sequence.output_token_ids for sequence in sequences]


def run_moved(
    source: ModelRunner, target: ModelRunner, mover: Mover, prompts: Prompts, num_tokens: int, num_before: int
) -> Moved:
    """All requests move after `num_before` of their tokens, to blocks with other numbers."""
    engine, sequences = _started(source, prompts, num_tokens)
    _be_at(source)
    while any(len(sequence.output_token_ids) < num_before for sequence in sequences):
        engine.step()
    there = make_engine(target, len(prompts) + 1, _num_batched(prompts))
    _take_first_blocks(there)
    start = perf_counter()
    arrived, tables, num_bytes = [], [], 0
    for sequence in sequences:
        engine.scheduler.freeze(sequence.request_id)
        copy = _copy(sequence)
        if there.scheduler.reserve(copy, sequence.num_tokens, ()) is None:
            raise ValueError("the other engine has no room")
        num_blocks = -(-sequence.num_computed_tokens // source.kv_cache.block_size)
        tables.append((sequence.block_table[:num_blocks], copy.block_table[:num_blocks], sequence.num_computed_tokens))
        mover.move(*tables[-1][:2])
        num_bytes += num_blocks * source.kv_cache.record_bytes
        copy.num_computed_tokens = sequence.num_computed_tokens
        there.scheduler.activate(copy.request_id)
        engine.scheduler.remove(sequence.request_id, SequenceStatus.FINISHED_ABORTED)
        arrived.append(copy)
    _be_at(target)
    there.step()
    stall_s = perf_counter() - start
    while any(not sequence.status.is_finished for sequence in arrived):
        there.step()
    return Moved(
        output_token_ids=[sequence.output_token_ids for sequence in arrived],
        has_same_kv=[_have_same_kv(source.kv_cache, target.kv_cache, *table) for table in tables],
        stall_s=stall_s,
        num_bytes=num_bytes,
    )


def same_share(first: List[object], second: List[object]) -> float:
    return sum(bool(one == other) for one, other in zip(first, second, strict=True)) / len(first)


def _have_same_kv(source: KVCache, target: KVCache, left: List[int], came: List[int], num_tokens: int) -> bool:
    """Of so many tokens. Nothing was computed at the source since, and at the target behind these."""
    # [num_blocks, 2, num_layers, block_size, num_kv_heads, head_dim] to tokens first
    there, here = (
        cache.tensor[list(ids)].permute(0, 3, 1, 2, 4, 5).flatten(0, 1)[:num_tokens].cpu()
        for cache, ids in ((source, left), (target, came))
    )
    return torch.equal(there, here)


def _be_at(runner: ModelRunner) -> None:
    """Kernels run on the thread's device, whatever memory they are given."""
    use_device(runner.kv_cache.tensor.device)


def _started(runner: ModelRunner, prompts: Prompts, num_tokens: int) -> tuple[Engine, list[Sequence]]:
    engine = make_engine(runner, len(prompts), _num_batched(prompts))
    sequences = [_sequence(str(number), tuple(prompt), num_tokens) for number, prompt in enumerate(prompts)]
    for sequence in sequences:
        engine.scheduler.add(sequence)
    return engine, sequences


def _num_batched(prompts: Prompts) -> int:
    """All in one step: then all decode in the same steps, whether they move or not."""
    return sum(map(len, prompts))


def _take_first_blocks(engine: Engine) -> None:
    """So that blocks have other numbers than they come with."""
    engine.scheduler.reserve(_sequence("in the way", (0, 0, 0), 1), 3, ())


def _copy(sequence: Sequence) -> Sequence:
    copy = _sequence(sequence.request_id, sequence.prompt_token_ids, sequence.sampling_params.max_tokens or 1)
    copy.output_token_ids = list(sequence.output_token_ids)
    return copy


def _sequence(request_id: str, prompt: List[int], max_tokens: int) -> Sequence:
    return Sequence(
        request_id=request_id,
        prompt_token_ids=prompt,
        sampling_params=SamplingParams(temperature=0.0, max_tokens=max_tokens),
        arrival_time_s=0.0,
    )
