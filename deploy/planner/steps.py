"""How to get from what runs to a better assignment: step by step, each one better, and none that a request notices.

An instance that moves is drained, ends and starts again elsewhere; two that exchange their roles are drained one after
the other, and stay where they are. What is the last that can do its work is never drained.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from deploy.planner.placement import Counts, Seat
from deploy.planner.room import Room
from deploy.planner.search import marginals_of
from deploy.planner.transfer_cost import TransferCost

_MAX_STEPS = 64
_TRIED_TARGETS = 16
_WORTH_IT = 0.02  # a step has to save so much of the time; and who is so near to the best has arrived


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    instance: str
    source: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """Two exchange their roles: `first` is drained first, since the other may be the last of its kind."""

    first: str
    second: str


Step = Move | Flip


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """`seats` and `mean_s`: what is there when all steps are done, and what a transfer then takes on the average.

    `bound`: those that could not be spared at the end, and so stay where they are.
    """

    steps: tuple[Step, ...]
    seats: tuple[Seat, ...]
    mean_s: float
    bound: tuple[str, ...]


def find_route(
    cost: TransferCost, room: Room, seats: Sequence[Seat], best_s: float, alike: Sequence[frozenset[str]] = ()
) -> Route:
    """The step that saves most, as long as one saves something and `best_s` is not nearly reached.

    `alike`: pools, by name, whose instances differ in nothing but their role. ValueError: see `Room.counts`.
    """
    picture = _Picture(cost, room, alike)
    steps: list[Step] = []
    current, mean_s = tuple(seats), cost.mean_s(room.counts(seats))
    while len(steps) < _MAX_STEPS and mean_s > best_s * (1.0 + _WORTH_IT):
        found = picture.best_step(current, mean_s)
        if found is None:
            break
        steps.append(found)
        current = _after(current, found)
        mean_s = cost.mean_s(room.counts(current))
    bound = tuple(seat.instance for seat in current if not picture.can_be_spared(current, seat.pool))
    return Route(steps=tuple(steps), seats=current, mean_s=mean_s, bound=bound)


class _Picture:
    """Pools and nodes by their places in the arrays. Instances of one pool on one node are as good as each other."""

    def __init__(self, cost: TransferCost, room: Room, alike: Sequence[frozenset[str]]) -> None:
        self._cost, self._room, self._alike = cost, room, alike
        self._pools = {pool.name: at for at, pool in enumerate(room.pools)}
        self._nodes = {node.name: at for at, node in enumerate(room.nodes)}

    def can_be_spared(self, seats: Sequence[Seat], pool: str) -> bool:
        """One of the pool: whether others can do both parts of the work."""
        left = [self._room.pools[self._pools[seat.pool]] for seat in seats]
        left.remove(self._room.pools[self._pools[pool]])
        return any(other.can_prefill for other in left) and any(other.can_decode for other in left)

    def best_step(self, seats: Sequence[Seat], mean_s: float) -> Step | None:
        """Of the most promising, the one that saves most; None when none saves enough."""
        counts = self._room.counts(seats)
        tried = [*self._moves(seats, counts), *self._flips(seats, counts)]
        if not tried:
            return None
        many = np.stack([changed for _, changed, _ in tried])
        changes_s = self._cost.changes_s(counts, many, np.array([nodes for *_, nodes in tried]))
        best = int(changes_s.argmin())
        return tried[best][0] if changes_s[best] < -_WORTH_IT * mean_s else None

    def _moves(self, seats: Sequence[Seat], counts: Counts) -> list[tuple[Step, Counts, tuple[int, int]]]:
        marginals = marginals_of(self._cost, counts)
        moves: list[tuple[Step, Counts, tuple[int, int]]] = []
        for seat in _one_of_each(seats):
            pool, source = self._pools[seat.pool], self._nodes[seat.node]
            if not self.can_be_spared(seats, seat.pool):
                continue
            for target in np.argsort(marginals[pool], kind="stable")[:_TRIED_TARGETS].tolist():
                changed = _changed(counts, (pool, source, -1), (pool, target, 1))
                if target != source and self._room.fits(target, changed[:, target].tolist()):
                    move = Move(instance=seat.instance, source=seat.node, target=self._room.nodes[target].name)
                    moves.append((move, changed, (source, target)))
        return moves

    def _flips(self, seats: Sequence[Seat], counts: Counts) -> list[tuple[Step, Counts, tuple[int, int]]]:
        flips: list[tuple[Step, Counts, tuple[int, int]]] = []
        each = _one_of_each(seats)
        for at, one in enumerate(each):
            for other in each[at + 1 :]:
                if one.node == other.node or one.pool == other.pool or not self._are_alike(one.pool, other.pool):
                    continue
                pools = self._pools[one.pool], self._pools[other.pool]
                nodes = self._nodes[one.node], self._nodes[other.node]
                if self.can_be_spared(seats, one.pool):
                    flip = Flip(first=one.instance, second=other.instance)
                elif self.can_be_spared(seats, other.pool):
                    flip = Flip(first=other.instance, second=one.instance)
                else:
                    continue
                gone = (pools[0], nodes[0], -1), (pools[1], nodes[1], -1)
                come = (pools[0], nodes[1], 1), (pools[1], nodes[0], 1)
                flips.append((flip, _changed(counts, *gone, *come), nodes))
        return flips

    def _are_alike(self, one: str, other: str) -> bool:
        return any({one, other} <= group for group in self._alike)


def _after(seats: Sequence[Seat], step: Step) -> tuple[Seat, ...]:
    if isinstance(step, Move):
        return tuple(replace(seat, node=step.target) if seat.instance == step.instance else seat for seat in seats)
    pools = {seat.instance: seat.pool for seat in seats}
    swapped = {step.first: pools[step.second], step.second: pools[step.first]}
    return tuple(replace(seat, pool=swapped.get(seat.instance, seat.pool)) for seat in seats)


def _one_of_each(seats: Sequence[Seat]) -> list[Seat]:
    """Of a pool on a node, the first."""
    first: dict[tuple[str, str], Seat] = {}
    for seat in seats:
        first.setdefault((seat.pool, seat.node), seat)
    return list(first.values())


def _changed(counts: Counts, *changes: tuple[int, int, int]) -> Counts:
    changed = counts.copy()
    for pool, node, number in changes:
        changed[pool, node] += number
    return changed
