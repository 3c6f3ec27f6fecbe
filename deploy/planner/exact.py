"""All assignments there are, for small clusters."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import comb

import numpy as np

from deploy.planner.placement import Counts
from deploy.planner.room import Room
from deploy.planner.transfer_cost import TransferCost

MAX_ASSIGNMENTS = 100_000
_BATCH = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Extremes:
    best: Counts
    best_s: float
    worst: Counts
    worst_s: float


def is_small(room: Room) -> bool:
    """Whether they can all be looked at; they are counted as if room were everywhere."""
    number = 1
    for pool in room.pools:
        number *= comb(pool.num_instances + len(room.nodes) - 1, pool.num_instances)
    return number <= MAX_ASSIGNMENTS


def find_extremes(cost: TransferCost, room: Room) -> Extremes | None:
    """The assignments with the least and the greatest cost; of equals the first. None when nothing fits."""
    found: Extremes | None = None
    assignments = _assignments(room)
    while batch := list(islice(assignments, _BATCH)):
        many = np.array(batch, np.int64)
        means_s = cost.means_s(many)
        least, most = int(means_s.argmin()), int(means_s.argmax())
        if found is None:
            found = Extremes(best=many[least], best_s=np.inf, worst=many[most], worst_s=-np.inf)
        best = (many[least], float(means_s[least])) if means_s[least] < found.best_s else (found.best, found.best_s)
        worst = (many[most], float(means_s[most])) if means_s[most] > found.worst_s else (found.worst, found.worst_s)
        found = Extremes(best=best[0], best_s=best[1], worst=worst[0], worst_s=worst[1])
    return found


def _assignments(room: Room) -> Iterator[list[list[int]]]:
    """Lists [num_pools][num_nodes] for which there is room."""
    placed = [[0] * len(room.nodes) for _ in room.pools]

    def place(pool: int, node: int, left: int) -> Iterator[list[list[int]]]:
        if pool == len(room.pools):
            yield [counts.copy() for counts in placed]
        elif node == len(room.nodes):
            if left == 0:
                following = room.pools[pool + 1].num_instances if pool + 1 < len(room.pools) else 0
                yield from place(pool + 1, 0, following)
        else:
            for count in range(left + 1):
                placed[pool][node] = count
                if not room.fits(node, [counts[node] for counts in placed]):
                    break
                yield from place(pool, node + 1, left - count)
            placed[pool][node] = 0

    return place(0, 0, room.pools[0].num_instances)
