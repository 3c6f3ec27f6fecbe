"""How much of what is moved live may be under way at once, so that it starves neither prefill hand-overs nor steps.

One piece a link at a time: whatever is in more of a hurry (the blocks of a new prompt, the last ones of a sequence that
stands still) waits for one piece at most. All links together stay within a budget, and within a rate if there is one.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass

from cluster.messages import Epoch, Holder


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
    """`bytes_per_s` None: as fast as the links are."""

    def __init__(self, max_bytes_in_flight: int, bytes_per_s: int | None) -> None:
        self._max_bytes_in_flight = max_bytes_in_flight
        self._bytes_per_s = bytes_per_s
        self._queues: OrderedDict[Holder, deque[Piece]] = OrderedDict()
        self._in_flight: dict[Holder, Piece] = {}
        self._next_at_s = 0.0

    def put(self, piece: Piece) -> None:
        self._queues.setdefault(piece.receiver, deque()).append(piece)

    def take(self, now_s: float) -> list[Piece]:
        """The pieces that leave now; each is to be told of by `ended`. Links take turns."""
        out = []
        for receiver in list(self._queues):
            piece = self._queues[receiver][0]
            if receiver in self._in_flight or not self._may_leave(piece, now_s):
                continue
            self._pop(receiver)
            self._in_flight[receiver] = piece
            if self._bytes_per_s is not None:
                self._next_at_s = max(now_s, self._next_at_s) + piece.num_bytes / self._bytes_per_s
            out.append(piece)
        return out

    def _may_leave(self, piece: Piece, now_s: float) -> bool:
        num_bytes = sum(other.num_bytes for other in self._in_flight.values())
        has_room = not num_bytes or num_bytes + piece.num_bytes <= self._max_bytes_in_flight
        return has_room and now_s >= self._next_at_s

    def _pop(self, receiver: Holder) -> None:
        queue = self._queues[receiver]
        queue.popleft()
        if queue:
            self._queues.move_to_end(receiver)
        else:
            del self._queues[receiver]

    def ended(self, request_id: str, epoch: Epoch, first_block: int) -> None:
        """Whatever became of it; of a piece that did not leave from here this is nothing."""
        for receiver, piece in self._in_flight.items():
            if (piece.request_id, piece.epoch, piece.first_block) == (request_id, epoch, first_block):
                del self._in_flight[receiver]
                return

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
