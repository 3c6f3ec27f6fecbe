"""Why there is no plan, or none of a sort, in a line."""

from collections.abc import Sequence

from deploy.planner.goodput.best_first import Tried
from deploy.planner.goodput.candidates import Catalogue
from deploy.planner.goodput.node_classes import NodeClass, largest_nodes
from deploy.planner.goodput.plans import Plan
from deploy.planner.goodput.question import Question
from deploy.planner.goodput.unit import PoolPlan, Role
from deploy.planner.goodput.why import describe


class WhyNone:
    """`too_little`, where it is given: plans that with all GPUs serve less than the rate that is asked for."""

    def __init__(self, question: Question, catalogue: Catalogue, classes: Sequence[NodeClass]) -> None:
        self._question, self._catalogue, self._classes = question, catalogue, classes

    def of_all(self, tried: Sequence[Tried], too_little: Sequence[Plan]) -> str:
        """Of what came nearest."""
        if not too_little:
            return self._nearest(tried) or "; ".join(map(self._no_room, self._able_sorts))
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

    def of_too_few_gpus(self) -> str:
        """ "": the smallest of a sort takes no more GPUs than there are."""
        found = [self._too_few_gpus(roles) for roles in self._able_sorts]
        return found[0] if all(found) else ""

    @property
    def _able_sorts(self) -> list[Sequence[Role]]:
        """Of which there are instances that can do something."""
        sorts: list[Sequence[Role]] = [("mixed",), ("prefill", "decode")]
        return [roles for roles in sorts if not self._catalogue.why_not(roles, largest_nodes(self._classes))]

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
        names = " and ".join(f"a {pool.role} instance {pool.parallelism}" for pool in self._least(roles))
        return self._too_few_gpus(roles) or f"no room: {names} do not fit on these nodes together with links between"

    def _too_few_gpus(self, roles: Sequence[Role]) -> str:
        """With what keeps an instance from being smaller."""
        least, there = self._least(roles), self._question.total_gpus
        number = sum(pool.num_gpus for pool in least)
        if number <= there:
            return ""
        names = " and ".join(f"a {pool.role} instance {pool.parallelism}" for pool in least)
        smaller = [str(why) for (_, it), why in self._catalogue.misfits.items() if it.num_gpus <= there]
        need = "needs" if len(least) == 1 else "need"
        return "; ".join([f"no room: {names} {need} {number} GPUs, and {there} may be used", *smaller[:1]])

    def _least(self, roles: Sequence[Role]) -> list[PoolPlan]:
        """The smallest instance of each role that can do something."""
        return [
            min(
                (pool for each in self._classes for pool in self._catalogue.pools(role, each.kind, each.num_gpus)),
                key=lambda pool: pool.num_gpus,
            )
            for role in roles
        ]
