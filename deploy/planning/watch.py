"""Looks now and then at what runs: whether other roles would serve what comes now better, over links as they are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from cluster.topology.topology import Topology
from deploy.planner.drift import Drift, DriftConfig
from deploy.planner.goodput.candidates import Catalogue
from deploy.planner.goodput.estimator import Estimator
from deploy.planner.goodput.layout import Seated
from deploy.planner.goodput.question import Question
from deploy.planner.goodput.resplit import Resplit, find_resplit
from deploy.planner.goodput.unit import Role
from deploy.planning.live_workload import LiveWorkload, Totals, between, stretched
from deploy.planning.plan import setting_of
from deploy.planning.routing import Routing
from deploy.planning.workers import Workers


class Eyes(Protocol):
    """What is known of the deployment as it runs. DeployError: it does not answer."""

    def totals(self) -> Totals: ...

    def topology(self) -> Topology: ...

    def running(self) -> Sequence[Seated]:
        """Instances that serve, in the roles that they have now."""
        ...

    def flip(self, instance: str, role: Role) -> None:
        """Drained, flipped, and let in again; it says so itself."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchConfig:
    """`margin`: so much more has to be served, in `num_checks` checks in a row. `is_applied`: flips are carried out."""

    margin: float = 0.1
    num_checks: int = 3
    is_applied: bool = False
    simulated_s: float | None = None
    num_processes: int | None = None
    routing: Routing = field(default_factory=Routing)


class Watch:
    """`fixed`: instances that cannot change their role for another: no pool of that role is like theirs."""

    def __init__(
        self, question: Question, eyes: Eyes, fixed: frozenset[str], config: WatchConfig, say: Callable[[str], None]
    ) -> None:
        self._question, self._eyes, self._fixed = question, eyes, fixed
        self._config, self._say = config, say
        self._drift = Drift(DriftConfig(margin=config.margin / (1.0 + config.margin), num_checks=config.num_checks))
        self._before: Totals | None = None
        self._said: object = None

    def check(self) -> None:
        """By the estimate first, which costs nothing; what has drifted is simulated before anybody is told."""
        now = self._eyes.totals()
        live = between(self._before, now) if self._before is not None else None
        if self._before is None or live is not None:
            self._before = now  # what is too little to tell is added to what comes next
        if live is None:
            return
        question = self._asked_now(live)
        found = self._resplit(question, None)
        if not self._drift.check(1.0 / max(found.current, 1e-9), 1.0 / max(found.best, 1e-9)) or not found.changes:
            self._said = None
            return
        if found.changes == self._said:
            return
        setting = setting_of(question, simulated_s=self._config.simulated_s, routing=self._config.routing)
        with Workers(setting, self._config.num_processes) as workers:
            simulated = self._resplit(question, workers)
        if simulated.best < simulated.current * (1.0 + self._config.margin):
            return
        self._said = found.changes
        self._tell(live, simulated)
        if self._config.is_applied:
            self._apply(simulated)

    def _asked_now(self, live: LiveWorkload) -> Question:
        topology, hardware = self._eyes.topology(), next(iter(self._question.hardware.values()))
        return replace(
            self._question,
            lengths=stretched(self._question.lengths, live),
            topology=topology,
            hardware={node.name: hardware for node in topology.nodes},
        )

    def _resplit(self, question: Question, workers: Workers | None) -> Resplit:
        catalogue = Catalogue(question)
        estimator = Estimator(catalogue, question.slos, question.request_bytes)
        return find_resplit(
            self._running(question),
            self._fixed,
            question.topology,
            catalogue.rates_of,
            question.request_bytes,
            workers.evaluate if workers is not None else estimator.evaluate,
        )

    def _running(self, question: Question) -> list[Seated]:
        kind = next(iter(question.hardware.values())).name
        return [replace(seat, pool=replace(seat.pool, kind=kind)) for seat in self._eyes.running()]

    def _tell(self, live: LiveWorkload, found: Resplit) -> None:
        self._say(f"{live}: the roles as they are serve {found.current:.3g} requests/s, {found.best:.3g} with")
        for change in found.changes:
            self._say(f"  {change.instance}: {change.before} -> {change.after} (a flip; requests go on elsewhere)")
        self._say("numbers of instances, parallelism and memory change only with a restart: see `baton plan`")

    def _apply(self, found: Resplit) -> None:
        for change in found.changes:
            self._eyes.flip(change.instance, change.after)
        self._said = None
