"""The planning of a question, with simulations as its evaluator."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from deploy.planner.goodput.find_plans import Find, find_plans, in_turn
from deploy.planner.goodput.layout import Seated
from deploy.planner.goodput.plans import Plan, Plans
from deploy.planner.goodput.question import Question
from deploy.planning.confirm import confirm
from deploy.planning.interval import LEAST_REQUESTS, interval_s
from deploy.planning.memory import Memory
from deploy.planning.routing import Routing
from deploy.planning.trial import Setting
from deploy.planning.workers import Workers

Say = Callable[[str], None]


def plan(
    question: Question,
    *,
    burstiness: float = 1.0,
    simulated_s: float | None = None,
    num_processes: int | None = None,
    routing: Routing | None = None,
    say: Say,
) -> Plans:
    """Infeasible, where nothing meets the SLOs or the rate. `simulated_s`: see `setting_of`."""
    setting = setting_of(question, burstiness, simulated_s=simulated_s, routing=routing)

    def progress(number: int) -> None:
        say(f"{number} goodputs simulated")

    with Workers(setting, num_processes, progress) as workers:
        confirmed: dict[tuple[Seated, ...], Plan | None] = {}  # what up can run may be what was the best anyway

        def again(plans: Sequence[Plan | None]) -> Sequence[Plan | None]:
            new = [plan for plan in plans if plan is not None and plan.layout.seats not in confirmed]
            if new:
                say("what was found again, longer and with other seeds")
            found = confirm(new, question, workers)
            confirmed.update(zip((plan.layout.seats for plan in new), found, strict=True))
            return [plan and confirmed[plan.layout.seats] for plan in plans]

        evaluate = Memory().beside(workers.evaluate)  # what `baton up` can run is searched for again
        find_all = _at_once if workers.num_at_once > 1 else in_turn
        return find_plans(question, evaluate, say, again, find_all, workers.num_at_once)


def _at_once(finds: Sequence[Find]) -> list[Plan | None]:
    """In threads, which mostly wait: rates of one plan are tried one after the other, which leaves processes idle."""
    with ThreadPoolExecutor(len(finds)) as threads:
        return [future.result() for future in [threads.submit(find) for find in finds]]


def setting_of(
    question: Question,
    burstiness: float = 1.0,
    seed: int = 0,
    *,
    simulated_s: float | None = None,
    routing: Routing | None = None,
) -> Setting:
    """`simulated_s`: for so long requests arrive in each simulation; None: as long as it should take."""
    return Setting(
        hardware={hardware.name: hardware for hardware in question.hardware.values()},
        lengths=question.lengths,
        slos=question.slos,
        engine=question.engine,
        interval_s=simulated_s or interval_s(question),
        least_requests=1 if simulated_s else LEAST_REQUESTS,
        burstiness=burstiness,
        seed=seed,
        routing=routing or Routing(),
    )
