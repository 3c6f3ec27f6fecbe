"""What a probe sends, on links that are only said to take so long."""

import random
from collections.abc import Callable, Iterator

import pytest

from cluster.links.probe.plan import SMALLEST_BYTES, SPLIT_BYTES, ProbeLimits, ProbePlan, ProbeStep
from cluster.topology.fit import fit_link
from cluster.topology.link_model import LinkModel

pytestmark = pytest.mark.unit

Link = Callable[[ProbeStep], float]


def make_link(alpha_s: float, beta: float, *, per_connection: float | None = None, noise: float = 0.0) -> Link:
    """`per_connection`: bytes/s that one connection gets at most."""
    rng = random.Random(1)

    def link(step: ProbeStep) -> float:
        rate = min(beta, step.num_connections * (per_connection or beta))
        return (alpha_s + step.num_bytes / rate) * rng.uniform(1.0 - noise, 1.0 + noise)

    return link


def run(plan: ProbePlan, link: Link, *, can_split: bool = True) -> Iterator[tuple[ProbeStep, float]]:
    """Every step and what it took, until the plan is over."""
    elapsed_s = 0.0
    while (step := plan.step) is not None:
        seconds = link(step)
        elapsed_s += seconds
        yield step, seconds
        plan.took(seconds, elapsed_s, can_split=can_split)


def fitted(plan: ProbePlan) -> LinkModel:
    model = fit_link([(sample.num_bytes, sample.seconds) for sample in plan.samples])
    assert model is not None
    return model


LINKS = [(1e-4, 10e9), (1e-4, 1e9), (4e-3, 125e6), (2e-3, 12.5e6), (1e-3, 2.5e6), (50e-3, 12.5e6)]


@pytest.mark.parametrize(("alpha_s", "beta"), LINKS)
def test_latency_and_bandwidth_are_found_within_the_budget(alpha_s: float, beta: float) -> None:
    plan = ProbePlan(ProbeLimits(budget_s=1.5))
    steps = list(run(plan, make_link(alpha_s, beta, noise=0.02)))
    assert fitted(plan).beta_bytes_per_s == pytest.approx(beta, rel=0.05)
    assert fitted(plan).alpha_s == pytest.approx(alpha_s, rel=0.1)
    assert sum(seconds for _, seconds in steps) <= 1.5
    assert plan.num_connections == 1


@pytest.mark.parametrize(("alpha_s", "beta"), LINKS[:4])
def test_no_transfer_takes_longer_than_it_may(alpha_s: float, beta: float) -> None:
    plan = ProbePlan(ProbeLimits(budget_s=5.0, max_connections=1))
    assert max(seconds for _, seconds in run(plan, make_link(alpha_s, beta))) <= 0.05 * 1.01


def test_a_quiet_link_is_measured_quickly() -> None:
    plan = ProbePlan(ProbeLimits(budget_s=10.0))
    steps = list(run(plan, make_link(1e-4, 1e9), can_split=False))
    assert sum(seconds for _, seconds in steps) < 0.2
    assert len(steps) < 40


def test_a_noisy_link_is_measured_for_longer_than_a_quiet_one() -> None:
    counts = []
    for noise in (0.0, 0.5):
        plan = ProbePlan(ProbeLimits(budget_s=10.0))
        counts.append(sum(step.counts for step, _ in run(plan, make_link(1e-4, 1e9, noise=noise))))
    assert counts[1] > 2 * counts[0]


def test_a_slow_link_is_measured_with_two_sizes_at_least() -> None:
    plan = ProbePlan(ProbeLimits(budget_s=3.0))
    list(run(plan, make_link(1e-2, 125e3)))
    assert {sample.num_bytes for sample in plan.samples} == {SMALLEST_BYTES, 4 * SMALLEST_BYTES}
    assert fitted(plan).beta_bytes_per_s == pytest.approx(125e3, rel=0.05)


def test_a_link_that_is_slower_than_the_budget_gives_what_there_is_and_ends() -> None:
    plan = ProbePlan(ProbeLimits(budget_s=0.5))
    steps = list(run(plan, make_link(2.0, 1e3)))
    assert len(steps) == 2
    assert [sample.num_bytes for sample in plan.samples] == [SMALLEST_BYTES]


@pytest.mark.parametrize(("rate", "chosen"), [(125e6, 1), (60e6, 2), (20e6, 4), (120e6, 1)])
def test_connections_are_as_many_as_measure_faster(rate: float, chosen: int) -> None:
    plan = ProbePlan(ProbeLimits(budget_s=3.0))
    steps = [step for step, _ in run(plan, make_link(2e-3, 125e6, per_connection=rate, noise=0.02))]
    assert plan.num_connections == chosen
    assert [step.num_kept for step in steps if step.num_kept] == [chosen]
    for step in steps:
        if step.counts:
            assert step.num_connections == (chosen if step.num_bytes >= SPLIT_BYTES else 1)


@pytest.mark.parametrize("limits", [ProbeLimits(max_connections=1), ProbeLimits(budget_s=0.1)])
def test_connections_are_not_tried_without_leave_or_time(limits: ProbeLimits) -> None:
    plan = ProbePlan(limits)
    steps = [step for step, _ in run(plan, make_link(2e-3, 125e6, per_connection=30e6))]
    assert all(step.num_connections == 1 for step in steps)


def test_what_is_not_tried_stays_as_it_was() -> None:
    plan = ProbePlan(ProbeLimits(), num_connections=4)
    steps = [step for step, _ in run(plan, make_link(2e-3, 2.5e6))]
    assert all(step.num_connections == 1 for step in steps)  # a trial would take too long
    assert plan.num_connections == 4


def test_a_shared_memory_link_has_one_connection() -> None:
    plan = ProbePlan(ProbeLimits())
    steps = [step for step, _ in run(plan, make_link(1e-4, 4e9), can_split=False)]
    assert {step.num_connections for step in steps} == {1}


def test_connections_that_cannot_be_had_leave_one() -> None:
    plan = ProbePlan(ProbeLimits(budget_s=3.0))
    link, elapsed_s, failed = make_link(2e-3, 125e6, per_connection=20e6), 0.0, 0
    while (step := plan.step) is not None:
        if step.num_connections > 1:
            failed += 1
            plan.failed()
        else:
            elapsed_s += link(step)
            plan.took(link(step), elapsed_s, can_split=True)
    assert failed == 1
    assert plan.num_connections == 1
    assert fitted(plan).beta_bytes_per_s == pytest.approx(20e6, rel=0.01)


def test_a_link_that_fails_ends_it() -> None:
    plan = ProbePlan(ProbeLimits())
    plan.failed()
    assert plan.step is None
    assert plan.samples == []
