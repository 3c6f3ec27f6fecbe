"""What no plan can exceed, whatever its numbers, and however large it is."""

from collections.abc import Sequence

from deploy.planner.goodput.bound import compute_bound
from deploy.planner.goodput.candidates import Catalogue
from deploy.planner.goodput.node_classes import NodeClass
from deploy.planner.goodput.unit import Role, Unit


def plan_bound(catalogue: Catalogue, classes: Sequence[NodeClass]) -> float:
    """Requests a second per GPU, by computing and memory.

    A GPU that prefills p and one that decodes d a second serve 1 / (1 / p + 1 / d) each, if their numbers are as they
    should be; a colocated one what it can. All plans are of these, so none serves more per GPU than the best of them.
    """
    prefill, decode, mixed = (_best(catalogue, classes, role) for role in ("prefill", "decode", "mixed"))
    apart = 1.0 / (1.0 / prefill + 1.0 / decode) if prefill and decode else 0.0
    return max(apart, mixed)


def _best(catalogue: Catalogue, classes: Sequence[NodeClass], role: Role) -> float:
    """Of one GPU that does nothing but this."""
    return max(
        (
            compute_bound(Unit(pools=(pool,)), catalogue.rates_of) / pool.num_gpus
            for nodes in classes
            for pool in catalogue.pools(role, nodes.kind, nodes.num_gpus)
        ),
        default=0.0,
    )
