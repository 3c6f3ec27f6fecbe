"""Requests that ended here not long ago: a front that has just died may not have told its client all of it (law 7)."""

from collections import OrderedDict

from cluster.messages import Held


class Retained:
    """For `retention_s` after their end, and the last `capacity` at most."""

    def __init__(self, retention_s: float, capacity: int = 4096) -> None:
        self._retention_s = retention_s
        self._capacity = capacity
        self._held: OrderedDict[str, tuple[float, Held]] = OrderedDict()

    def put(self, held: Held, now_s: float) -> None:
        self._held.pop(held.state.request_id, None)
        self._held[held.state.request_id] = (now_s + self._retention_s, held)
        if len(self._held) > self._capacity:
            self._held.popitem(last=False)

    def drop(self, request_id: str) -> None:
        self._held.pop(request_id, None)

    def expire(self, now_s: float) -> None:
        while self._held and next(iter(self._held.values()))[0] <= now_s:
            self._held.popitem(last=False)

    def of(self, front_name: str) -> list[Held]:
        return [held for _, held in self._held.values() if name_of(held.state.front) == front_name]


def name_of(front: str) -> str:
    """Without the term: what stays the same over a front's lives."""
    return front.rpartition("/")[0] or front
