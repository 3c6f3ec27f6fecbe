"""The cluster full of units: each class of nodes with copies of what serves best there."""

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.planner.goodput.layout import Ground, Layout
from deploy.planner.goodput.unit import Unit, join

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
class Whole:
    """`layouts`: two, where they differ: all instances placed together, and copies side by side, each for itself.

    `unit` is the best part's, so often; `per_gpu`: what is expected, if copies serve as much together as apart.
    """

    layouts: tuple[Layout, ...]
    unit: Unit
    nodes: tuple[str, ...]
    copies: int
    per_gpu: float


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
    packed = ground.pack([(part.unit, copies, part.nodes) for part, copies in units])
    while units:
        part, copies = units[0]
        per_gpu = sum(part.goodput * copies for part, copies in units) / sum(
            part.unit.num_gpus * copies for part, copies in units
        )
        if packed is not None and packed.unit.num_gpus > PLACED_GPUS:
            return Whole(layouts=(packed,), unit=part.unit, nodes=part.nodes, copies=copies, per_gpu=per_gpu)
        unit = join([part.unit.times(copies) for part, copies in units])
        nodes = [node.name for node in ground.topology.nodes if node.name in taken]
        layout = ground.among(nodes).lay_out(unit)
        if layout is not None:
            return Whole(
                layouts=(packed, layout) if packed is not None else (layout,),
                unit=part.unit,
                nodes=part.nodes,
                copies=copies,
                per_gpu=per_gpu,
            )
        units = _one_less(units)
    return None


def _one_less(units: list[tuple[Part, int]]) -> list[tuple[Part, int]]:
    """Without a copy of what serves least per GPU: cut into nodes, GPUs may be too few."""
    part, copies = units[-1]
    return [*units[:-1], (part, copies - 1)] if copies > 1 else units[:-1]
