"""Who sends to whom at once, so that it shows what a node has in all: one against several, in disjoint groups."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

SIZE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Fan:
    """`hub` is measured: it sends to all others at once, or all others send to it."""

    hub: str
    others: tuple[str, ...]


def fans(nodes: Sequence[str], size: int = SIZE) -> list[list[Fan]]:
    """Each node is the hub of one fan, in groups of about that size. None for two nodes: their link says it all."""
    if len(nodes) < 3:
        return []
    groups = _groups(nodes, max(1, len(nodes) // size))
    return [
        [_fan(group, at) for group in groups if at < len(group)] for at in range(max(len(group) for group in groups))
    ]


def _fan(group: Sequence[str], at: int) -> Fan:
    return Fan(hub=group[at], others=tuple(node for node in group if node != group[at]))


def _groups(nodes: Sequence[str], number: int) -> list[Sequence[str]]:
    """As equal as they can be."""
    ends = [len(nodes) * at // number for at in range(number + 1)]
    return [nodes[start:end] for start, end in pairwise(ends)]
