"""The cluster full of units: each class of nodes with copies of what serves best there."""

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.planner.goodput.layout import Ground, Layout
from deploy.planner.goodput.unit import Copies, Unit, join

WORTH_IT = 0.5
"""Nodes on which a GPU serves less than half of what one serves elsewhere are left out: they hurt."""

PLACED_GPUS = 64
"""Instances on more GPUs are not placed all at once: copies side by side are as good, and known to be."""


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
class Share:
    """Copies of one part, side by side on its own nodes."""

    part: Part
    layout: Layout

    @property
    def copies(self) -> int:
        return self.layout.unit.num_gpus // self.part.unit.num_gpus


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Whole:
    """`layouts`: two, where they differ: copies side by side, each for itself, and all instances placed together."""

    shares: tuple[Share, ...]
    layouts: tuple[Layout, ...]

    @property
    def copies(self) -> tuple[Copies, ...]:
        return tuple(Copies(unit=share.part.unit, number=share.copies) for share in self.shares)

    @property
    def per_gpu(self) -> float:
        """What is expected, if copies serve as much together as apart."""
        goodput = sum(share.part.goodput * share.copies for share in self.shares)
        return goodput / sum(share.layout.unit.num_gpus for share in self.shares)


def fill(parts: Sequence[Part], ground: Ground, num_gpus: int, *, worth: float = WORTH_IT) -> Whole | None:
    """The best part first, as often as its nodes have GPUs for it; None: there is room for none.

    `worth`: parts that serve less per GPU than this share of the best are left out.
    """
    ordered = sorted(parts, key=lambda part: -part.per_gpu)
    taken: set[str] = set()
    shares: list[Share] = []
    left = num_gpus
    for part in ordered:
        copies = min(part.num_gpus, left) // part.unit.num_gpus
        if part.per_gpu < worth * ordered[0].per_gpu or not copies or taken & set(part.nodes):
            continue
        layout = ground.among(part.nodes).pack(part.unit, copies)
        if layout is not None:
            shares.append(Share(part=part, layout=layout))
            taken |= set(part.nodes)
            left -= layout.unit.num_gpus
    if not shares:
        return None
    layouts = [ground.side_by_side([share.layout for share in shares])]
    if layouts[0].unit.num_gpus <= PLACED_GPUS:
        together = _at_once(shares, ground, num_gpus, taken)
        layouts += [layout for layout in together if layout.per_node() != layouts[0].per_node()]
    return Whole(shares=tuple(shares), layouts=tuple(layouts))


def _at_once(shares: Sequence[Share], ground: Ground, num_gpus: int, nodes: set[str]) -> list[Layout]:
    """All instances of as many copies as there are GPUs for, placed together; cut into nodes, GPUs may be too few."""
    units: list[tuple[Part, int]] = []
    left = num_gpus
    for share in shares:
        copies = min(share.part.num_gpus, left) // share.part.unit.num_gpus
        units.append((share.part, copies))
        left -= copies * share.part.unit.num_gpus
    where = ground.among([node.name for node in ground.topology.nodes if node.name in nodes])
    while units:
        layout = where.lay_out(join([part.unit.times(copies) for part, copies in units if copies]))
        if layout is not None:
            return [layout]
        units = _one_less(units)
    return []


def _one_less(units: list[tuple[Part, int]]) -> list[tuple[Part, int]]:
    """Without a copy of what serves least per GPU."""
    part, copies = units[-1]
    return [*units[:-1], (part, copies - 1)] if copies > 1 else units[:-1]
