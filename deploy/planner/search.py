"""A good assignment for clusters where not all can be looked at: placed one by one, then moved and exchanged.

Bounded by the number of instances that are tried elsewhere, not by a clock: the same input gives the same assignment.
"""

from itertools import islice

import numpy as np

from deploy.planner.placement import Counts, Floats
from deploy.planner.room import Room
from deploy.planner.transfer_cost import Places, TransferCost

_TRIED_PLACES = 8
_TRIED_SOURCES = 200
_TRIED_TARGETS = 12
_NUM_TRIES = 2_000
_IMPROVES = 1e-9  # relative


def place_one_by_one(cost: TransferCost, room: Room, potentials_s: Floats, first: int) -> Counts | None:
    """The first prefill instance on node `first`, every next instance where it costs least beside those that are there.

    The roles take turns, so that both sides of the traffic grow together. None when one finds no room.
    """
    counts = np.zeros(room.most.shape, np.int64)
    alone_s = cost.alone_s()
    towards, away = np.zeros(cost.num_nodes), np.zeros(cost.num_nodes)  # to the decodes there are, from the prefills
    for step, pool in enumerate(_turns(room)):
        marginal = np.zeros(cost.num_nodes)
        if cost.prefills[pool]:
            marginal += towards
        if cost.decodes[pool]:
            marginal += away
        order = np.argsort(marginal + 1e-9 * potentials_s, kind="stable")
        if step == 0:
            node = next((node for node in (first, *order.tolist()) if _has_room(room, counts, pool, node)), None)
        else:
            node = _cheapest(cost, room, counts, pool, order)
        if node is None:
            return None
        counts[pool, node] += 1
        if cost.decodes[pool]:
            towards += alone_s[:, node]
        if cost.prefills[pool]:
            away += alone_s[node]
    return counts


def place_evenly(room: Room) -> Counts | None:
    """What one who knows nothing of links does: each on the node with the fewest, in the order that they are listed."""
    counts = np.zeros(room.most.shape, np.int64)
    for at, pool in enumerate(room.pools):
        for _ in range(pool.num_instances):
            order = np.argsort(counts.sum(axis=0), kind="stable").tolist()
            node = next((node for node in order if _has_room(room, counts, at, node)), None)
            if node is None:
                return None
            counts[at, node] += 1
    return counts


def place_largest_first(room: Room) -> Counts | None:
    """First fit, the pools with the largest instances first: what finds room when there is hardly any."""
    counts = np.zeros(room.most.shape, np.int64)
    sizes = [(-pool.num_gpus, -pool.memory_bytes, -pool.num_cpus, at) for at, pool in enumerate(room.pools)]
    for *_, pool in sorted(sizes):
        for _ in range(room.pools[pool].num_instances):
            node = next((node for node in range(len(room.nodes)) if _has_room(room, counts, pool, node)), None)
            if node is None:
                return None
            counts[pool, node] += 1
    return counts


def improve(cost: TransferCost, room: Room, counts: Counts, *, worsen: bool = False) -> Counts:
    """Moves single instances, and exchanges two, as long as that lessens the mean time. `worsen`: adds to it."""
    sign = -1.0 if worsen else 1.0
    counts = counts.copy()
    num_left = _NUM_TRIES
    while num_left > 0:
        before_s = sign * cost.mean_s(counts)
        marginals = sign * marginals_of(cost, counts)
        for pool, source in _worst_placed(counts, marginals):
            num_left -= 1
            moves = _moves(room, counts, marginals, pool, source) if counts[pool, source] and num_left > 0 else []
            if moves:
                many = np.stack([changed for changed, _ in moves])
                changes_s = sign * cost.changes_s(counts, many, np.array([(source, to) for _, to in moves]))
                best = int(changes_s.argmin())
                if changes_s[best] < -_IMPROVES * abs(before_s):
                    counts = many[best]
        if sign * cost.mean_s(counts) >= before_s - _IMPROVES * abs(before_s):
            break
    return counts


def shake(room: Room, counts: Counts, num_moves: int, rng: np.random.Generator) -> Counts:
    """Some instances elsewhere, or exchanged, at random: to look again from there."""
    counts = counts.copy()
    for _ in range(num_moves):
        pools, nodes = np.nonzero(counts)
        one, other = rng.integers(len(pools), size=2)
        pool, source, target = int(pools[one]), int(nodes[one]), int(rng.integers(counts.shape[1]))
        moved = _moved(counts, pool, source, target)
        if target != source and room.fits(target, moved[:, target].tolist()):
            counts = moved
            continue
        target = int(nodes[other])
        moved = _moved(_moved(counts, pool, source, target), int(pools[other]), target, source)
        if target != source and all(room.fits(node, moved[:, node].tolist()) for node in (source, target)):
            counts = moved
    return counts


def _worst_placed(counts: Counts, marginals: Floats) -> list[tuple[int, int]]:
    """(pool, node), those first that cost most against the mean of their pool; a bounded number of them."""
    pools, nodes = np.nonzero(counts)
    means = np.array([np.average(row, weights=count) for row, count in zip(marginals, counts, strict=True)])
    order = np.argsort(means[pools] - marginals[pools, nodes], kind="stable")[:_TRIED_SOURCES]
    return [(int(pools[at]), int(nodes[at])) for at in order]


def _moves(room: Room, counts: Counts, marginals: Floats, pool: int, source: int) -> list[tuple[Counts, int]]:
    """(changed counts, to which node): the most promising places for one instance, free or taken by another pool's."""
    moves = []
    for target in np.argsort(marginals[pool], kind="stable")[:_TRIED_TARGETS].tolist():
        moved = _moved(counts, pool, source, target)
        if target != source and room.fits(target, moved[:, target].tolist()):
            moves.append((moved, target))
    for other in range(len(counts)):
        there = np.nonzero(counts[other])[0] if other != pool else np.array([], np.int64)
        gains = marginals[pool, there] + marginals[other, source] - marginals[other, there]
        for target in there[np.argsort(gains, kind="stable")[:_TRIED_TARGETS]].tolist():
            moved = _moved(_moved(counts, pool, source, target), other, target, source)
            if target != source and all(room.fits(node, moved[:, node].tolist()) for node in (source, target)):
                moves.append((moved, target))
    return moves


def marginals_of(cost: TransferCost, counts: Counts) -> Floats:
    """[num_pools, num_nodes]: about what one more instance there adds, as the others are placed."""
    sources, targets = cost.prefills @ counts, cost.decodes @ counts
    everywhere = np.arange(cost.num_nodes)
    rows, columns = np.nonzero(sources)[0], np.nonzero(targets)[0]
    to_decodes = cost.times_s(counts, everywhere, columns) @ targets[columns]
    from_prefills = sources[rows] @ cost.times_s(counts, rows, everywhere)
    return np.asarray(np.outer(cost.prefills, to_decodes) + np.outer(cost.decodes, from_prefills))


def _cheapest(cost: TransferCost, room: Room, counts: Counts, pool: int, order: Places) -> int | None:
    """Of the first few nodes in that order with room."""
    with_room = (node for node in order.tolist() if _has_room(room, counts, pool, node))
    nodes = np.array(list(islice(with_room, _TRIED_PLACES)), np.intp)
    if not len(nodes):
        return None
    many = np.repeat(counts[None], len(nodes), axis=0)
    many[np.arange(len(nodes)), pool, nodes] += 1
    return int(nodes[cost.changes_s(counts, many, nodes[:, None]).argmin()])


def _turns(room: Room) -> list[int]:
    """Pools, each as often as it has instances, evenly mixed; prefill first."""
    turns = [
        ((number + 0.5) / pool.num_instances, not pool.can_prefill, at)
        for at, pool in enumerate(room.pools)
        for number in range(pool.num_instances)
    ]
    order = [at for *_, at in sorted(turns)]
    first = next((index for index, at in enumerate(order) if room.pools[at].can_prefill), 0)
    return [order[first], *order[:first], *order[first + 1 :]]


def _moved(counts: Counts, pool: int, source: int, target: int) -> Counts:
    moved = counts.copy()
    moved[pool, source] -= 1
    moved[pool, target] += 1
    return moved


def _has_room(room: Room, counts: Counts, pool: int, node: int) -> bool:
    column = counts[:, node].tolist()
    column[pool] += 1
    return room.fits(node, column)
