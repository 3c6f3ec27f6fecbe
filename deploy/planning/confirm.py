"""What plans serve, from simulations that no search has seen: with other seeds, and longer ones."""

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt
from statistics import mean, stdev

from deploy.planner.goodput.estimate import Attainment
from deploy.planner.goodput.evaluation import Answer
from deploy.planner.goodput.plans import Plan
from deploy.planner.goodput.question import Question
from deploy.planning.interval import confirmed_s
from deploy.planning.workers import Again, Workers

SEEDS = (500, 501, 502)


def confirm(plans: Sequence[Plan], question: Question, workers: Workers) -> list[Plan | None]:
    """With the mean goodput over seeds and its standard error; where a rate is asked for, the attainment there.

    A plan of which only a part is simulated stays as it is.
    """
    whole = [plan for plan in plans if plan.num_checked_gpus == plan.num_gpus]
    asks = [_again(plan, question, seed) for plan in whole for seed in SEEDS]
    answers = workers.evaluate_again(asks)
    found = {id(plan): answers[at * len(SEEDS) : (at + 1) * len(SEEDS)] for at, plan in enumerate(whole)}
    return [_confirmed(plan, found[id(plan)]) if id(plan) in found else plan for plan in plans]


def _again(plan: Plan, question: Question, seed: int) -> Again:
    rate = question.rate or plan.goodput
    return Again(
        layout=plan.layout,
        seed=seed,
        rate=rate,
        interval_s=confirmed_s(question, rate),
        is_searched=question.rate is None,
    )


def _confirmed(plan: Plan, answers: Sequence[Answer]) -> Plan | None:
    """None: with none of the seeds it meets the SLOs at any rate near to what was found."""
    rates = [answer.rate or 0.0 for answer in answers]
    if not any(rates):
        return None
    attained = [(it.ttft, it.tpot, it.both) for it in (answer.attainment for answer in answers)]
    ttft, tpot, both = (mean(shares) for shares in zip(*attained, strict=True))
    return replace(
        plan,
        goodput=mean(rates),
        attainment=Attainment(ttft=ttft, tpot=tpot, both=both),
        standard_error=stdev(rates) / sqrt(len(rates)),
        num_seeds=len(rates),
        is_beyond=any(answer.is_beyond for answer in answers),
    )
