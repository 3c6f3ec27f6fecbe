"""What `baton up` cannot run yet, in one place: plans that need it are marked."""

from deploy.planner.goodput.unit import Unit


def obstacles(unit: Unit) -> list[str]:
    """What keeps `baton up` from running it, in words; [] where nothing does."""
    found = []
    if unit.has_pp:
        found.append("pipeline parallelism")
    if len(unit.kinds) > 1:
        found.append("pools bound to kinds of nodes")
    return found
