"""The cluster full of units: each class of nodes with copies of what serves best there."""

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.planner.goodput.layout import Ground, Layout
from deploy.planner.goodput.unit import Unit, join

WORTH_IT = 0.5
"""Nodes on which a GPU serves less than half of what one serves elsewhere are left out: they hurt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A unit for some nodes, which have GPUs for so many in all; `goodput` in requests a second."""

    unit: Unit
    goodput: float
    nodes: tuple[str, ...]
    num_gpus: int

    @property
    def per_gpu(self) -> float:
        return self.goodput / self.unit.num_gpus


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Whole:
    """`expected`: requests a second, if copies serve as much together as apart."""

    layout: Layout
    unit: Unit
    copies: int
    expected: float


def fill(parts: Sequence[Part], ground: Ground, num_gpus: int) -> Whole | None:
    """The best part first, as often as its nodes have GPUs for it; None: there is room for none."""
    ordered = sorted(parts, key=lambda part: -part.per_gpu)
    taken: set[str] = set()
    units: list[tuple[Part, int]] = []
    left = num_gpus
    for part in ordered:
        is_worth_it = part.per_gpu >= WORTH_IT * ordered[0].per_gpu
        copies = min(part.num_gpus, left) // part.unit.num_gpus
        if is_worth_it and copies and not taken & set(part.nodes):
            units.append((part, copies))
            taken |= set(part.nodes)
            left -= copies * part.unit.num_gpus
    while units:
        unit = join([part.unit.times(copies) for part, copies in units])
        nodes = [node.name for node in ground.topology.nodes if node.name in taken]
        layout = ground.among(nodes).lay_out(unit)
        if layout is not None:
            expected = sum(part.goodput * copies for part, copies in units)
            return Whole(layout=layout, unit=units[0][0].unit, copies=units[0][1], expected=expected)
        units = _one_less(units)
    return None


def _one_less(units: list[tuple[Part, int]]) -> list[tuple[Part, int]]:
    """Without a copy of what serves least per GPU: cut into nodes, GPUs may be too few."""
    part, copies = units[-1]
    return [*units[:-1], (part, copies - 1)] if copies > 1 else units[:-1]
