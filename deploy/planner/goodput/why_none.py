"""Why there is no plan, or none of a sort, in a line."""

from collections.abc import Sequence

from deploy.planner.goodput.best_first import Tried
from deploy.planner.goodput.candidates import Catalogue
from deploy.planner.goodput.node_classes import NodeClass, largest_nodes
from deploy.planner.goodput.plans import Plan
from deploy.planner.goodput.question import Question
from deploy.planner.goodput.unit import Role
from deploy.planner.goodput.why import describe


class WhyNone:
    """`too_little`, where it is given: plans that with all GPUs serve less than the rate that is asked for."""

    def __init__(self, question: Question, catalogue: Catalogue, classes: Sequence[NodeClass]) -> None:
        self._question, self._catalogue, self._classes = question, catalogue, classes

    def of_all(self, tried: Sequence[Tried], too_little: Sequence[Plan]) -> str:
        """Of what came nearest."""
        if not too_little:
            return self._nearest(tried) or "no unit has room on these nodes"
        most = max(too_little, key=lambda plan: plan.goodput)
        return (
            f"{self._question.rate:g} requests a second are too many: the most that was found, "
            f"with {most.num_gpus} of {self._question.total_gpus} GPUs, serves {most.goodput:.3g} ({most.whole})"
        )

    def of_sort(self, roles: Sequence[Role], tried: Sequence[Tried], too_little: Sequence[Plan]) -> str:
        """Only of plans with these roles."""
        if why := self._catalogue.why_not(roles, largest_nodes(self._classes)):
            return why
        if too_little:
            return f"all GPUs serve {max(plan.goodput for plan in too_little):.3g} requests/s"
        return self._nearest(tried) or self._no_room(roles)

    def _nearest(self, tried: Sequence[Tried]) -> str:
        """Which limit was missed by the one that came nearest; "": none was tried."""
        if not tried:
            return ""
        slos, nearest = self._question.slos, max(tried, key=lambda each: each.rank)
        if nearest.answer.rate:
            return f"{nearest.candidate.unit} does by itself, but all of it together does not meet the SLOs"
        few = "however few come" if not nearest.above else f"at {nearest.above:.3g} requests a second"
        return (
            f"no deployment meets the SLOs for {slos.attainment:.0%} of the requests, {few}: "
            f"with {nearest.candidate.unit}, {describe(nearest.answer.attainment, slos)}"
        )

    def _no_room(self, roles: Sequence[Role]) -> str:
        least = []
        for role in roles:
            pools = [pool for each in self._classes for pool in self._catalogue.pools(role, each.kind, each.num_gpus)]
            least.append(min(pools, key=lambda pool: pool.num_gpus))
        number = sum(pool.num_gpus for pool in least)
        names = " and ".join(f"a {pool.role} instance {pool.parallelism}" for pool in least)
        if number > self._question.total_gpus:
            return f"no room: {names} need {number} GPUs, and there are {self._question.total_gpus}"
        return f"no room: {names} do not fit on these nodes together with links between them"
