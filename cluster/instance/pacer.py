"""How much of what is moved live may be under way at once, so that it starves neither prefill hand-overs nor steps.

Two pieces a link at a time, so that it need not wait for the next: whatever is in more of a hurry (the blocks of a new
prompt, the last ones of a sequence that stands still) waits for these at most. A piece is what the link moves in
`PIECE_S`, as far as its speed is known: on a slow link, nobody waits behind megabytes. All links together stay within a
budget, and within a rate if there is one.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

from cluster.messages import Epoch, Holder

PIECES_PER_LINK = 2
PIECE_S = 0.02
CREDIT_S = 0.1
"""An idle instance looks again this often: what a rate allowed meanwhile is not lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Blocks [first_block, first_block + num_blocks) of a sequence that decodes on meanwhile."""

    request_id: str
    epoch: Epoch
    receiver: Holder
    reservation: int
    first_block: int
    num_blocks: int
    num_bytes: int


class Pacer:
    """`bytes_per_s` None: as fast as the links are. `piece_bytes`: of a piece at most, over however fast a link."""

    def __init__(self, max_bytes_in_flight: int, bytes_per_s: int | None, piece_bytes: float = math.inf) -> None:
        self._max_bytes_in_flight = max_bytes_in_flight
        self._bytes_per_s = bytes_per_s
        self._piece_bytes = piece_bytes
        self._link_speeds: Mapping[str, float] = {}
        self._queues: OrderedDict[Holder, deque[Piece]] = OrderedDict()
        self._in_flight: list[Piece] = []
        self._next_at_s = -math.inf

    def learned(self, link_speeds: Mapping[str, float]) -> None:
        """bytes/s of the links to these instances; what leaves from now on is cut by them."""
        self._link_speeds = link_speeds

    def put(self, piece: Piece) -> None:
        """Of any size: it is cut when it leaves."""
        self._queues.setdefault(piece.receiver, deque()).append(piece)

    def take(self, now_s: float) -> list[Piece]:
        """The pieces that leave now; each is to be told of by `ended`. Links take turns."""
        out: list[Piece] = []
        while (piece := self._next(now_s)) is not None:
            self._pop(piece)
            self._in_flight.append(piece)
            if self._bytes_per_s is not None:
                self._next_at_s = max(now_s - CREDIT_S, self._next_at_s) + piece.num_bytes / self._bytes_per_s
            out.append(piece)
        return out

    def _next(self, now_s: float) -> Piece | None:
        """The first that a link has a place for, cut to what the budget has left: one block alone never exceeds it."""
        room = self._max_bytes_in_flight - sum(piece.num_bytes for piece in self._in_flight)
        if now_s >= self._next_at_s:
            for receiver, queue in self._queues.items():
                is_free = sum(piece.receiver == receiver for piece in self._in_flight) < PIECES_PER_LINK
                piece = self._cut(queue[0], room)
                if is_free and (piece.num_bytes <= room or not self._in_flight):
                    return piece
        return None

    def _cut(self, piece: Piece, room: int) -> Piece:
        """The beginning of it that may leave at once: at least one block."""
        block_bytes = piece.num_bytes // piece.num_blocks
        speed = self._link_speeds.get(piece.receiver.instance, math.inf)
        limit = min(self._piece_bytes, speed * PIECE_S, room)
        if limit >= piece.num_bytes:
            return piece
        num_blocks = max(1, int(limit // block_bytes))
        return replace(piece, num_blocks=num_blocks, num_bytes=num_blocks * block_bytes)

    def _pop(self, piece: Piece) -> None:
        queue = self._queues[piece.receiver]
        first = queue.popleft()
        if num_left := first.num_blocks - piece.num_blocks:
            start = first.first_block + piece.num_blocks
            left_bytes = first.num_bytes - piece.num_bytes
            queue.appendleft(replace(first, first_block=start, num_blocks=num_left, num_bytes=left_bytes))
        if queue:
            self._queues.move_to_end(piece.receiver)
        else:
            del self._queues[piece.receiver]

    def ended(self, request_id: str, epoch: Epoch, first_block: int) -> None:
        """Whatever became of it; of a piece that did not leave from here this is nothing."""
        name = (request_id, epoch, first_block)
        self._in_flight = [it for it in self._in_flight if (it.request_id, it.epoch, it.first_block) != name]

    def withdraw(self, request_id: str, epoch: Epoch) -> list[Piece]:
        """Takes back, in order, what has not left yet."""
        out: list[Piece] = []
        for receiver, queue in list(self._queues.items()):
            mine = [piece for piece in queue if (piece.request_id, piece.epoch) == (request_id, epoch)]
            if mine:
                out += mine
                rest = deque(piece for piece in queue if piece not in mine)
                if rest:
                    self._queues[receiver] = rest
                else:
                    del self._queues[receiver]
        return out
