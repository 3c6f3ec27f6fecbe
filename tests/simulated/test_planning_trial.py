"""What a trial counts, and for how long it goes on."""

from types import SimpleNamespace

import pytest

from cluster.spec.deployment import Deployment
from deploy.planner.goodput.question import Slos
from deploy.planning.routing import Routing, routing_of
from deploy.planning.trial import Tally
from tests.unit.spec.factories import make_document

pytestmark = pytest.mark.simulated

SLOS = Slos(ttft_s=1.0, tpot_s=0.1, attainment=0.9)


def ended(arrival_s, *, ttft_s=0.5):
    first_s = arrival_s + ttft_s
    return SimpleNamespace(
        arrival_s=arrival_s,
        first_token_s=first_s,
        last_token_s=first_s + 0.5,
        num_output_tokens=11,
        error=None,
        is_cut_short=False,
    )


def test_the_router_in_trials_does_what_the_file_says():
    document = make_document(
        router={"policy": "least_loaded", "max_queued_requests": 7, "rescheduling": {"policy": "none"}}
    )
    found = routing_of(Deployment.model_validate(document))
    assert (found.policy, found.max_queued_requests, found.rescheduling.policy) == ("least_loaded", 7, "none")
    assert routing_of(Deployment.model_validate(make_document())) == Routing(max_queued_requests=1024)


def test_who_is_never_answered_meets_nothing():
    assert Tally(SLOS, 0.0, 10).attainment().both == 0.0
    tally = Tally(SLOS, 0.0, 10)
    for at in range(9):
        tally.ended(ended(float(at)))
    assert tally.attainment().both == tally.attainment().ttft == pytest.approx(0.9)


def test_those_that_came_first_are_not_judged():
    tally = Tally(SLOS, 5.0, 5)
    for at in range(10):
        tally.ended(ended(float(at), ttft_s=2.0 if at < 5 else 0.5))
    assert tally.attainment().both == 1.0


def test_to_the_end_it_counts_all_that_missed():
    tally = Tally(SLOS, 0.0, 10, to_the_end=True)
    for at in range(10):
        tally.ended(ended(float(at), ttft_s=2.0 if at < 5 else 0.5))
    found = tally.attainment()
    assert (found.both, found.ttft, found.tpot, found.is_cut_short) == (0.5, 0.5, 1.0, False)
