"""What the core of an instance wants done in the world; its body does it. And what it needs from the world at once."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from cluster.messages import BlockTransfer, Epoch, Grant, Holder, InstanceMessage, Probe, ReceiverMessage, SourceMessage


@dataclass(frozen=True, slots=True)
class ToFront:
    front: str
    message: InstanceMessage


@dataclass(frozen=True, slots=True)
class ToReceiver:
    """As the source of a handover; `grant` says where the receiver is."""

    grant: Grant
    message: SourceMessage


@dataclass(frozen=True, slots=True)
class ToSource:
    """As the receiver of a handover."""

    source: Holder
    message: ReceiverMessage


@dataclass(frozen=True, slots=True)
class StartTransfer:
    grant: Grant
    transfer: BlockTransfer


@dataclass(frozen=True, slots=True)
class StartProbe:
    """Measure a link for a front, which is told what was found."""

    front: str
    probe: Probe


@dataclass(frozen=True, slots=True)
class DropProbes:
    """Of a front that is gone, those that have not begun."""

    front: str


Effect = ToFront | ToReceiver | ToSource | StartTransfer | StartProbe | DropProbes


class BlockChecksums(Protocol):
    """Of the blocks in this instance's memory, by block id."""

    def seal(self, block_ids: Iterable[int]) -> None:
        """Takes the checksum of blocks that are full, or that stand still."""

    def get(self, block_ids: Iterable[int]) -> tuple[int, ...]: ...

    def put(self, block_ids: Iterable[int], checksums: Iterable[int]) -> None:
        """Of blocks that arrived and were checked."""


class Slots(Protocol):
    """Where incoming blocks may be written: see `cluster.links`."""

    def open(
        self, reservation: int, source: Holder, epoch: Epoch, block_ids: tuple[int, ...], first_block: int
    ) -> None: ...

    def close(self, reservation: int) -> bool:
        """Accepts nothing more; whether nothing is posted into its blocks now. If not, `on_quiet` follows."""
