"""Where an instance comes back whose node is gone, while the others stay where they are."""

from collections.abc import Sequence, Set

import numpy as np

from deploy.planner.placement import Seat
from deploy.planner.room import Room
from deploy.planner.transfer_cost import TransferCost


def find_node(
    cost: TransferCost, room: Room, others: Sequence[Seat], pool: str, choice: Set[str] | None = None
) -> str | None:
    """The node with room where one more of that pool adds least to what transfers take; None where there is none.

    `choice`: the nodes that it may be; None: all.
    """
    counts = room.counts(others)
    here = next(at for at, each in enumerate(room.pools) if each.name == pool)
    with_one = counts + (np.arange(len(room.pools)) == here)[:, None]
    among = [at for at, node in enumerate(room.nodes) if choice is None or node.name in choice]
    free = [at for at in among if room.fits(at, with_one[:, at].tolist())]
    if not free:
        return None
    many = np.repeat(counts[None], len(free), axis=0)
    many[np.arange(len(free)), here, free] += 1
    changes_s = cost.changes_s(counts, many, np.array(free)[:, None])
    return room.nodes[free[int(changes_s.argmin())]].name
