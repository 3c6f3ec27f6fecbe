"""One instance of the model: the real core on a tiny engine, its events and what it wants done.

The clock stands at zero. A timer is an event of its own (`repeat`, `doubt`, `lease_over`, `grace_over`): it may strike
whenever the network says so, in any order with everything else.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from cluster.engine.block_manager import BlockManager
from cluster.engine.engine import Engine
from cluster.engine.sampling_params import SamplingParams
from cluster.engine.scheduler import Scheduler, SchedulerConfig
from cluster.instance.config import CoreConfig, HandoverConfig
from cluster.instance.core import InstanceCore
from cluster.instance.effects import DropProbes, StartTransfer, ToFront, ToReceiver, ToSource
from cluster.instance.hosted import sequence_from
from cluster.links.slot_table import Refusal, SlotTable
from cluster.messages import (
    BlockTransfer,
    DispatchRefused,
    Epoch,
    GrantRefused,
    Holder,
    Refused,
    SequenceState,
    SourceMessage,
    StepUpdate,
)
from cluster.role import InstanceRole
from tests.unit.engine.factories import FakeRunner, expected_output

BLOCK_SIZE = 2
NUM_BLOCKS = 6
FRONT = "front"
REQUEST = SequenceState(
    request_id="r",
    front=f"{FRONT}/1",
    prompt_token_ids=(11, 12, 13),
    sampling_params=SamplingParams(max_tokens=2),
    arrival_time_s=0.0,
)
ANSWER = tuple(expected_output(sequence_from(REQUEST)))

_GRACE_S, _LATE_S, _RETENTION_S = 1.0, 10.0, 100.0
_CONFIG = CoreConfig(
    handover=HandoverConfig(lease_s=_LATE_S / 2, reserve_timeout_s=_LATE_S / 2, headroom_blocks=1),
    grace_s=_GRACE_S,
    retention_s=_RETENTION_S,
)


class NoChecksums:
    """The fake model's tokens tell a wrong block by themselves."""

    def seal(self, block_ids: Iterable[int]) -> None:
        pass

    def get(self, block_ids: Iterable[int]) -> tuple[int, ...]:
        return tuple(0 for _ in block_ids)

    def put(self, block_ids: Iterable[int], checksums: Iterable[int]) -> None:
        pass


class Node:
    """`turn(event, ...)` returns what it wants done: ("front" | "source" | "receiver" | "link" | ..., ...)."""

    def __init__(self, holder: Holder) -> None:
        config = SchedulerConfig(
            max_num_seqs=4, max_num_batched_tokens=16, watermark_blocks=0, max_model_len=NUM_BLOCKS * BLOCK_SIZE
        )
        self.blocks = BlockManager(NUM_BLOCKS, BLOCK_SIZE, enable_prefix_caching=False)
        self.scheduler = Scheduler(config, self.blocks)
        self.runner = FakeRunner(self.blocks)
        self.quiet: list[int] = []
        self.slots = SlotTable(self.quiet.append)
        engine = Engine(self.scheduler, self.runner)
        self.core = InstanceCore(holder, InstanceRole.MIXED, engine, self.slots, NoChecksums(), _CONFIG)

    def turn(self, event: str, *args: Any) -> list[tuple[Any, ...]]:
        out = getattr(self, event)(*args) or []
        while self.quiet:
            self.core.on_quiet(self.quiet.pop())
        out += [self._wanted(effect) for effect in self.core.effects if not isinstance(effect, DropProbes)]
        self.core.effects.clear()
        self.scheduler.check_integrity()
        self.slots.check_integrity()
        self._normalise()
        return out

    # Events

    def joined(self, front: str) -> None:
        self.core.on_front_joined(front)

    def left(self, front: str) -> None:
        self.core.on_front_lost(front)

    def from_front(self, front: str, message: Any) -> None:
        self.core.on_front_message(front, message, 0.0)

    def from_source(self, source: Holder, message: SourceMessage) -> None:
        self.core.on_source_message(source, message, 0.0)

    def from_source_while_full(self, source: Holder, message: SourceMessage) -> None:
        """As if others had taken every block just then."""
        free = self.blocks._free[:]
        self.blocks._free.clear()
        self.core.on_source_message(source, message, 0.0)
        self.blocks._free[:0] = free

    def from_receiver(self, receiver: Holder, message: Any) -> None:
        self.core.on_receiver_message(receiver, message, 0.0)

    def block(
        self, source: Holder, transfer: BlockTransfer, records: tuple[tuple[int, ...], ...]
    ) -> list[tuple[Any, ...]]:
        count = len(transfer.block_ids)
        posted = self.slots.post(transfer.reservation, source, transfer.epoch, transfer.first_block, count)
        if isinstance(posted, Refusal):
            return [("ended", posted.value)]
        for block_id, record in zip(posted, records, strict=True):
            self.runner.slots[block_id * BLOCK_SIZE : (block_id + 1) * BLOCK_SIZE] = record
        self.slots.complete(transfer.reservation, transfer.first_block, count)
        self.core.on_arrived(transfer.reservation, transfer.first_block, count, (0,) * count)
        return [("ended", None)]

    def bad_block(self, source: Holder, transfer: BlockTransfer) -> list[tuple[Any, ...]]:
        """It arrived, and its checksum does not fit."""
        count = len(transfer.block_ids)
        posted = self.slots.post(transfer.reservation, source, transfer.epoch, transfer.first_block, count)
        if not isinstance(posted, Refusal):
            self.slots.abandon(transfer.reservation, transfer.first_block, count)
            self.core.on_bad(transfer.reservation, "checksum")
        return [("ended", "checksum")]

    def ended(self, transfer: BlockTransfer, failure: str | None) -> None:
        self.core.on_transfer_ended(transfer, failure, 0.0)

    def peer_lost(self, peer: Holder) -> None:
        self.core.on_receiver_lost(peer, 0.0)
        self.core.on_source_lost(peer)

    def receiver_lost(self, peer: Holder) -> None:
        self.core.on_receiver_lost(peer, 0.0)

    def source_lost(self, peer: Holder) -> None:
        self.core.on_source_lost(peer)

    def step(self) -> None:
        output = self.core.plan(0.0)
        if output is not None:
            self.core.compute(output, 0.0)

    def repeat(self) -> None:
        """A Pass and an Activated that nobody has answered."""
        self.core.tick(0.0)

    def doubt(self) -> None:
        """No reservation in time, no answer to the baton for too long."""
        self.core._outbound.tick(_LATE_S)

    def lease_over(self) -> None:
        self.core._inbound.expire_leases(_LATE_S)

    def grace_over(self) -> None:
        self.core.tick(0.0)
        self.core.tick(_GRACE_S + 1.0)

    # What it wants

    def _wanted(self, effect: object) -> tuple[Any, ...]:
        match effect:
            case ToFront(front, message):
                return ("front", front, _plain(message))
            case ToReceiver(grant, message):
                return ("receiver", grant.receiver, _plain(message))
            case ToSource(source, message):
                return ("source", source, _plain(message))
            case StartTransfer(grant, transfer):
                return ("link", grant.receiver, transfer, self._records(transfer.block_ids))
        raise AssertionError(effect)

    def _records(self, block_ids: Iterable[int]) -> tuple[tuple[int, ...], ...]:
        """They are pinned, and full or frozen: they stay as they are until the link is done with them."""
        slots = self.runner.slots
        return tuple(tuple(slots[it * BLOCK_SIZE : (it + 1) * BLOCK_SIZE]) for it in block_ids)

    # What others may know

    @property
    def copies(self) -> tuple[tuple[Epoch, bool], ...]:
        """(epoch, whether it may run) of all that is hosted here."""
        return tuple(
            (it.epoch, not it.sequence.is_finished and (not it.is_passing or it.open_handover.holds_baton))
            for it in self.core._hosted.values()
        )

    @property
    def is_empty(self) -> bool:
        core = self.core
        return not (
            core._hosted
            or core._postponed
            or len(core._inbound)
            or core._outbound._expected
            or core._outbound._open
            or core._outbound._pacer._queues
            or core._outbound._pacer._in_flight
            or self.scheduler.sequences
            or self.slots.num_reservations
            or self.blocks.num_free_blocks < self.blocks.num_blocks
        )

    # One state for all that behave alike

    def _normalise(self) -> None:
        """Blocks are taken lowest first, free ones are empty, counts of the past start over, and timers are due.

        A timer that is due strikes when its event says so.
        """
        blocks, roster, scheduler = self.blocks, self.scheduler._roster, self.scheduler
        is_blocked = scheduler._blocked_at == scheduler._state
        blocks._free.sort(reverse=True)
        for block_id in blocks._free:
            self.runner.slots[block_id * BLOCK_SIZE : (block_id + 1) * BLOCK_SIZE] = [0] * BLOCK_SIZE
        self.runner.num_computed_tokens = 0
        roster.num_changes = roster._num_admitted = 0
        scheduler._blocked_at = scheduler._state if is_blocked else None
        roster.waiting._heap = [entry[0] for entry in roster.waiting._entries.values()]
        assert len(roster.waiting._heap) <= 1, "one request is all this model is made for"
        self.core._fronts._missing_since_s = dict.fromkeys(self.core._fronts._missing_since_s, 0.0)
        for hosted in self.core._outbound._open.values():
            assert hosted.handover is not None
            hosted.handover._repeat_at_s = 0.0


def _plain(message: Any) -> Any:
    """Without words and loads, which decide nothing."""
    if isinstance(message, Refused | GrantRefused | DispatchRefused):
        return replace(message, reason="")
    if isinstance(message, StepUpdate):
        return replace(message, num_waiting_tokens=0, num_dispatches_seen=0)
    return message
