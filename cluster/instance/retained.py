"""Requests that ended here not long ago: a front that has just died may not have told its client all of it (law 7)."""

from collections import OrderedDict

from cluster.messages import Held


class Retained:
    """For `retention_s` after their end, and the last `capacity` with `max_num_tokens` in all at most."""

    def __init__(self, retention_s: float, capacity: int = 4096, max_num_tokens: int = 1 << 20) -> None:
        self._retention_s = retention_s
        self._capacity = capacity
        self._max_num_tokens = max_num_tokens
        self._num_tokens = 0
        self._held: OrderedDict[str, tuple[float, Held]] = OrderedDict()

    def put(self, held: Held, now_s: float) -> None:
        self.drop(held.state.request_id)
        self._held[held.state.request_id] = (now_s + self._retention_s, held)
        self._num_tokens += _num_tokens(held)
        while len(self._held) > self._capacity or self._num_tokens > self._max_num_tokens:
            self.drop(next(iter(self._held)))

    def drop(self, request_id: str) -> None:
        if (entry := self._held.pop(request_id, None)) is not None:
            self._num_tokens -= _num_tokens(entry[1])

    def expire(self, now_s: float) -> None:
        while self._held and next(iter(self._held.values()))[0] <= now_s:
            self.drop(next(iter(self._held)))

    def of(self, front: str) -> list[Held]:
        """What earlier lives of this front had here. Its own it has acknowledged: it comes back knowing them."""
        return [
            held
            for _, held in self._held.values()
            if name_of(held.state.front) == name_of(front) and held.state.front != front
        ]


def _num_tokens(held: Held) -> int:
    return len(held.state.prompt_token_ids) + len(held.state.output_token_ids)


def name_of(front: str) -> str:
    """Without the term: what stays the same over a front's lives."""
    return front.rpartition("/")[0] or front
