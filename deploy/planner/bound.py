"""What no assignment can be below, so that a search can say how far from the best it is at most.

After Gilmore and Lawler's bound for the quadratic assignment problem: every prefill instance is given the decode
instances that would suit it best, as if no other wanted those places; then the places for prefill that come out
cheapest are taken. The same from the decode side; the greater of the two counts. What has to be shared is in it.
"""

import numpy as np

from deploy.planner.placement import Counts, Floats
from deploy.planner.room import Room
from deploy.planner.transfer_cost import TransferCost

_MAX_SLOTS = 8  # further places on a node are taken to cost what the last of these does: less than they do
_ROWS = 64


class LowerBound:
    def __init__(self, cost: TransferCost, room: Room) -> None:
        self._alpha_s, self._link_s, self._out_s, self._in_s = cost.parts_s()
        self._in_flight = cost.in_flight
        self._num_prefill, self._num_decode = cost.num_prefill, cost.num_decode
        prefill, decode = np.nonzero(cost.prefills)[0], np.nonzero(cost.decodes)[0]
        self._most_prefill = np.minimum(room.most[prefill].sum(axis=0), cost.num_prefill)
        self._most_decode = np.minimum(room.most[decode].sum(axis=0), cost.num_decode)
        self._decode_beside = _beside(room, decode, prefill)  # at most, on a node with a prefill instance
        self._prefill_beside = _beside(room, prefill, decode)
        self._has_mixed = bool((cost.prefills * cost.decodes).any())

    def mean_s(self) -> float:
        return max(self._from_prefill(), self._from_decode())

    def potentials_s(self) -> Floats:
        """[num_nodes]: the mean time from one prefill instance there to the decode places that suit it best."""
        return self._prefill_sums(1) / max(1, self._num_decode)

    def _from_prefill(self) -> float:
        top = min(_MAX_SLOTS, int(self._most_prefill.max(initial=1)))
        sums = np.stack([self._prefill_sums(number) * number for number in range(1, top + 1)])
        return self._cheapest(sums, self._most_prefill, self._num_prefill)

    def _from_decode(self) -> float:
        top = min(_MAX_SLOTS, int(self._most_decode.max(initial=1)))
        sums = np.stack([self._decode_sums(number) * number for number in range(1, top + 1)])
        return self._cheapest(sums, self._most_decode, self._num_decode)

    def _cheapest(self, sums: Floats, most: Counts, number: int) -> float:
        """`sums` [num_slots, num_nodes]: the cost of so many there; the least that `number` of them can cost."""
        slots = np.diff(sums, axis=0, prepend=0.0).T
        return float(_sum_of_least(slots, most, number)) / max(1, self._num_prefill * self._num_decode)

    def _prefill_sums(self, number: int) -> Floats:
        """[num_nodes]: of one prefill instance among `number` there, to all decode instances."""
        return self._sums(
            lambda rows, slot: self._network_s(rows, slice(None), number, slot),
            self._most_decode,
            self._decode_beside,
            self._num_decode,
        )

    def _decode_sums(self, number: int) -> Floats:
        """[num_nodes]: of one decode instance among `number` there, from all prefill instances."""
        return self._sums(
            lambda rows, slot: self._network_s(slice(None), rows, slot, number).T,
            self._most_prefill,
            self._prefill_beside,
            self._num_prefill,
        )

    def _sums(self, times_s, most: Counts, beside: Counts, number: int) -> Floats:  # type: ignore[no-untyped-def]
        num_nodes = len(most)
        wanted = number - 1 if self._has_mixed else number  # itself, for nothing
        top = max(1, min(_MAX_SLOTS, int(most.max(initial=1))))
        parts = []
        for start in range(0, num_nodes, _ROWS):
            rows = np.arange(start, min(start + _ROWS, num_nodes))
            totals = np.stack([times_s(rows, slot) * slot for slot in range(1, top + 1)], axis=-1)
            slots = np.diff(totals, axis=-1, prepend=0.0)  # [num_rows, num_nodes, num_slots]
            local = np.diag(self._alpha_s)[rows] + np.diag(self._link_s)[rows]
            slots[np.arange(len(rows)), rows, :] = local[:, None]
            room = np.broadcast_to(most, (len(rows), num_nodes)).copy()
            room[np.arange(len(rows)), rows] = beside[rows]
            parts.append(_sum_of_least(slots, room, wanted))
        return np.concatenate(parts)

    def _network_s(self, rows, columns, num_sources: int, num_targets: int) -> Floats:  # type: ignore[no-untyped-def]
        """Between different nodes, with so many prefill instances here and decode instances there."""
        near, share = (num_sources - 1) * self._in_flight, num_targets / max(1, self._num_decode)
        far = np.maximum(self._num_prefill - self._prefill_beside - 1, 0) * self._in_flight
        stays = self._decode_beside / max(1, self._num_decode)
        out_s = self._out_s * (1.0 + near * (1.0 - stays))
        in_s = self._in_s * (1.0 + far * share)
        link_s = self._link_s[rows][:, columns] * (1.0 + near * share)
        return np.asarray(
            self._alpha_s[rows][:, columns]
            + np.maximum(link_s, np.maximum(out_s[rows][:, None], in_s[columns][None, :]))
        )


def _beside(room: Room, these: Counts, others: Counts) -> Counts:
    """[num_nodes]: how many instances of these pools fit beside one of the others, at most."""
    beside = [np.sum([room.with_one(int(pool), int(other)) for pool in these], axis=0) for other in others]
    return np.asarray(np.max(beside, axis=0), np.int64)


def _sum_of_least(slots: Floats, room: Counts, number: int) -> Floats:
    """[...]: the sum of the `number` least of slots [..., num_nodes, num_slots]; of a node what it has room for.

    Places beyond the last slot cost as much as that one.
    """
    num_slots = slots.shape[-1]
    is_there = np.arange(num_slots) < room[..., None]
    costs = np.where(is_there, slots, np.inf)
    extra = np.maximum(room - num_slots, 0)
    if extra.any():
        return _with_extra(costs, extra, number)
    flat = costs.reshape(*costs.shape[:-2], -1)
    number = min(number, flat.shape[-1])
    least = np.partition(flat, number - 1, axis=-1)[..., :number] if number else flat[..., :0]
    return np.asarray(np.where(np.isfinite(least), least, 0.0).sum(axis=-1))


def _with_extra(costs: Floats, extra: Counts, number: int) -> Floats:
    times = np.ones(costs.shape, np.int64)
    times[..., -1] += extra
    flat, many = costs.reshape(*costs.shape[:-2], -1), times.reshape(*times.shape[:-2], -1)
    order = np.argsort(flat, axis=-1)
    flat, many = np.take_along_axis(flat, order, -1), np.take_along_axis(many, order, -1)
    taken = np.clip(number - (np.cumsum(many, axis=-1) - many), 0, many)
    return np.asarray((np.where(np.isfinite(flat), flat, 0.0) * taken).sum(axis=-1))
