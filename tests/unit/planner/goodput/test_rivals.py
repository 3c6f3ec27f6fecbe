"""A cluster full of small units against one full of the best: what copies share is not seen in one of them."""

import pytest

from deploy.planner.goodput.estimate import Attainment
from deploy.planner.goodput.evaluation import Answer
from deploy.planner.goodput.find_plans import Search
from tests.unit.planner.goodput.factories import make_question, make_topology, make_unit

pytestmark = pytest.mark.unit

LARGE, SMALL = make_unit((4, 2), (4, 2)), make_unit((4, 1), (2, 2))  # (TP, instances) of prefill and decode


def search(small_alone, small_together, attainment=0.86):
    """An evaluator that knows two splits; per GPU the large unit serves 2.2, alone and together."""
    asked = []

    def evaluate(asks):
        asked.extend(ask.layout.unit for ask in asks)
        return [answer(ask) for ask in asks]

    def answer(ask):
        unit = ask.layout.unit
        if unit.split == LARGE.split:
            per_gpu = 2.2
        elif unit.split == SMALL.split:
            per_gpu = small_alone if unit.num_gpus == SMALL.num_gpus else small_together
        else:
            per_gpu = 0.1
        rate, both = per_gpu * unit.num_gpus, 0.9
        if rate <= ask.above:
            rate, both = None, attainment if unit.split == SMALL.split else 0.2
        return Answer(rate=rate, attainment=Attainment(ttft=both, tpot=both, both=both))

    return Search(make_question(topology=make_topology(4, 8)), evaluate), asked


def test_what_came_near_alone_is_tried_in_copies_and_taken_where_they_serve_more():
    found = search(small_alone=2.1, small_together=2.5)[0].best_plan(is_mixed=False)
    assert found.whole.split == SMALL.split
    assert found.per_gpu == pytest.approx(2.5)
    assert found.num_gpus == 32


def test_it_is_not_taken_where_they_do_not():
    found = search(small_alone=2.1, small_together=2.15)[0].best_plan(is_mixed=False)
    assert found.whole.split == LARGE.split


def test_what_was_far_off_is_not_tried_again():
    searching, asked = search(small_alone=1.0, small_together=2.5, attainment=0.5)
    assert searching.best_plan(is_mixed=False).whole.split == LARGE.split
    assert {unit.num_gpus for unit in asked if unit.split == SMALL.split} == {SMALL.num_gpus}
