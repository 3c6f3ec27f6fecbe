"""Which GPUs of its node an instance gets: its ranks talk most, so they get those with the best links between them."""

from collections.abc import Sequence
from itertools import combinations, islice
from math import floor

from cluster.topology.topology import Node

_MAX_SETS = 20_000  # compared for one instance; enough for 8 of 16


def assign_gpus(node: Node, needs: Sequence[float]) -> list[tuple[int, ...]]:
    """The GPUs of each instance on a node, in the order of `needs`; () for one that needs none. There is room for them.

    The largest instances choose first: the set whose slowest link is fastest, then the one with the most in all; among
    equals one that leaves good sets to the others, since it takes neighbours.
    """
    given: list[tuple[int, ...]] = [()] * len(needs)
    free = list(range(node.num_gpus))
    shared: dict[int, float] = {}
    for at in sorted(range(len(needs)), key=lambda at: -needs[at]):
        if needs[at] >= 1:
            given[at] = _best(node, free, floor(needs[at]))
            free = [gpu for gpu in free if gpu not in given[at]]
        elif needs[at] > 0:
            fitting = [gpu for gpu, left in shared.items() if left + 1e-9 >= needs[at]]
            gpu = min(fitting, key=lambda gpu: shared[gpu]) if fitting else free.pop(0)
            shared[gpu] = shared.get(gpu, 1.0) - needs[at]
            given[at] = (gpu,)
    return given


def _best(node: Node, free: Sequence[int], number: int) -> tuple[int, ...]:
    if not node.gpu_links or number == len(free):
        return tuple(free[:number])
    return max(
        islice(combinations(free, number), _MAX_SETS),
        key=lambda chosen: (_slowest(node, chosen), _rest(node, free, chosen), _total(node, chosen)),
    )


def _slowest(node: Node, gpus: Sequence[int]) -> float:
    return min((_link(node, one, other) for one, other in combinations(gpus, 2)), default=0.0)


def _total(node: Node, gpus: Sequence[int]) -> float:
    return sum(_link(node, one, other) for one, other in combinations(gpus, 2))


def _rest(node: Node, free: Sequence[int], chosen: Sequence[int]) -> float:
    return _total(node, [gpu for gpu in free if gpu not in chosen])


def _link(node: Node, one: int, other: int) -> float:
    return min(node.gpu_links[one][other], node.gpu_links[other][one])
