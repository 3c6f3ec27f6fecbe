"""What `baton up` cannot run yet, in one place: plans that need it are marked."""

from cluster.latency.hardware import Parallelism
from deploy.planner.goodput.unit import Unit

MAX_TENSOR_PARALLEL = 1
MAX_PIPELINE_PARALLEL = 1


def can_run(parallelism: Parallelism) -> bool:
    return parallelism.tp <= MAX_TENSOR_PARALLEL and parallelism.pp <= MAX_PIPELINE_PARALLEL


def obstacles(unit: Unit) -> list[str]:
    """What keeps `baton up` from running it, in words; [] where nothing does."""
    found = []
    if any(pool.parallelism.pp > MAX_PIPELINE_PARALLEL for pool in unit.pools):
        found.append("pipeline parallelism")
    if any(pool.parallelism.tp > MAX_TENSOR_PARALLEL for pool in unit.pools):
        found.append("tensor parallelism")
    if len(unit.kinds) > 1:
        found.append("pools bound to kinds of nodes")
    return found
