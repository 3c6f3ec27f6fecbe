"""A transfer that several carry a piece of each: it has been sent when all of them have."""

import threading
from dataclasses import dataclass

from cluster.links.events import SourceEvents
from cluster.messages import BlockTransfer, Epoch


@dataclass(slots=True)
class _Pieces:
    num_left: int
    reason: str = ""


class PieceEvents:
    """Thread-safe. Implements `SourceEvents`; tells of each transfer once, when nobody reads its blocks any more."""

    def __init__(self, events: SourceEvents) -> None:
        self._events = events
        self._lock = threading.Lock()
        self._all: dict[tuple[str, Epoch, int, int], _Pieces] = {}

    def expect(self, transfer: BlockTransfer, num_pieces: int) -> None:
        """So many events are to follow."""
        if num_pieces > 1:
            with self._lock:
                self._all[_key(transfer)] = _Pieces(num_pieces)

    def on_sent(self, transfer: BlockTransfer) -> None:
        self._end(transfer, "")

    def on_send_failed(self, transfer: BlockTransfer, reason: str) -> None:
        self._end(transfer, reason)

    def _end(self, transfer: BlockTransfer, reason: str) -> None:
        with self._lock:
            if (pieces := self._all.get(_key(transfer))) is not None:
                pieces.num_left -= 1
                reason = pieces.reason = pieces.reason or reason
                if pieces.num_left:
                    return
                del self._all[_key(transfer)]
        if reason:
            self._events.on_send_failed(transfer, reason)
        else:
            self._events.on_sent(transfer)


def _key(transfer: BlockTransfer) -> tuple[str, Epoch, int, int]:
    return transfer.request_id, transfer.epoch, transfer.reservation, transfer.first_block
