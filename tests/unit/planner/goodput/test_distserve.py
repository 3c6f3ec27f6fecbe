"""DistServe's algorithms by themselves, and as the limits of our search: links without end, and none."""

import numpy as np
import pytest

from cluster.latency.hardware import Parallelism
from deploy.planner.goodput.bound import layout_bound
from deploy.planner.goodput.candidates import Catalogue
from deploy.planner.goodput.crossover import ANY_BANDWIDTH, NO_BANDWIDTH, crossovers, sweep, with_bandwidth
from deploy.planner.goodput.distserve import fill_gpus, high_affinity, low_affinity
from deploy.planner.goodput.distserve_plans import DistServe
from deploy.planner.goodput.evaluation import Ask
from deploy.planner.goodput.find_plans import Search
from deploy.planner.goodput.question import Lengths
from tests.unit.planner.goodput.factories import GBPS, OPT_13B, OPT_66B, estimated, make_question, make_topology

pytestmark = pytest.mark.unit

TP1, TP2, TP4 = Parallelism(1), Parallelism(2), Parallelism(4)


def test_high_affinity_takes_the_best_of_each_phase_as_often_as_the_rate_needs():
    prefill, decode = {TP1: 1.0, TP2: 3.0, TP4: 5.0}, {TP1: 4.0, TP2: 6.0, TP4: 8.0}
    plan = high_affinity(list(prefill), prefill.__getitem__, decode.__getitem__, rate=10.0)
    assert plan is not None
    assert (plan.prefill, plan.num_prefill, plan.decode, plan.num_decode) == (TP2, 4, TP1, 3)
    assert plan.num_gpus == 11


def test_high_affinity_has_no_plan_where_a_phase_meets_no_slo():
    assert high_affinity([TP1], lambda _: 1.0, lambda _: 0.0, rate=1.0) is None


def test_low_affinity_takes_the_best_pair_that_fits_on_a_node():
    goodputs = {(TP1, TP1): 1.0, (TP2, TP1): 2.0, (TP2, TP2): 2.4, (TP4, TP4): 9.0}
    plan = low_affinity([TP1, TP2, TP4], 4, lambda *pair: goodputs.get(pair, 0.1), rate=5.0)
    assert plan is not None
    assert (plan.prefill, plan.decode, plan.num_prefill, plan.num_decode) == (TP2, TP1, 3, 3)
    assert low_affinity([TP4], 4, lambda *pair: 1.0, rate=1.0) is None


def test_a_plan_fills_the_gpus_that_there_are():
    def plan_for(rate):
        return high_affinity([TP2], lambda _: 3.0, lambda _: 5.0, rate)

    plan = fill_gpus(plan_for, 16)
    assert plan is not None
    assert (plan.num_prefill, plan.num_decode) == (5, 3)
    assert fill_gpus(plan_for, 3) is None


def planned(model, bytes_per_s, **given):
    """Our best plan apart, the question, and theirs: the same evaluator answers both."""
    question = make_question(model, with_bandwidth(make_topology(4, 8), bytes_per_s), **given)
    evaluate = estimated(question)
    ours = Search(question, evaluate).best_plan(is_mixed=False)
    assert ours is not None
    return ours, question, DistServe(question, evaluate)


def per_gpu(question, layout):
    bound = layout_bound(layout, Catalogue(question).rates_of, question.request_bytes)
    return (estimated(question)([Ask(layout=layout, at_most=bound)])[0].rate or 0.0) / layout.unit.num_gpus


both_models = pytest.mark.parametrize("model", [OPT_13B, OPT_66B], ids=["opt-13b", "opt-66b"])


@both_models
def test_with_bandwidth_without_end_it_is_algorithm_1(model):
    ours, question, distserve = planned(model, ANY_BANDWIDTH)
    plans = (distserve.high(num_gpus=num_gpus) for num_gpus in range(question.total_gpus, 0, -1))
    layouts = (distserve.layout(plan, pairs=False) for plan in plans if plan is not None)
    layout = next(layout for layout in layouts if layout is not None)  # the first that can be cut into nodes
    assert ours.whole.split == layout.unit.split
    assert ours.per_gpu >= 0.98 * per_gpu(question, layout)


@both_models
def test_with_none_it_is_algorithm_2(model):
    ours, _, distserve = planned(model, NO_BANDWIDTH, pairs_only=True)
    theirs = distserve.low()
    assert theirs is not None
    assert ours.whole == distserve.unit(theirs)
    assert is_kept_on_nodes(ours)


def is_kept_on_nodes(plan):
    """Whoever prefills has somebody who decodes beside it."""
    return all({pool.role for pool in held} == {"prefill", "decode"} for held in plan.layout.per_node().values())


@both_models
def test_with_none_numbers_that_may_differ_are_no_worse_than_pairs(model):
    ours, question, distserve = planned(model, NO_BANDWIDTH)
    theirs = distserve.low()
    assert theirs is not None
    layout = distserve.layout(theirs, pairs=True)
    assert layout is not None
    assert ours.per_gpu >= 0.98 * per_gpu(question, layout)
    assert is_kept_on_nodes(ours)


def test_in_between_it_says_where_the_best_plan_changes():
    """Two GPUs a node: only across nodes can prefill have two and decode another."""

    def plan_at(bytes_per_s):
        question = make_question(topology=with_bandwidth(make_topology(2, 2), bytes_per_s))
        return Search(question, estimated(question)).best_plan(is_mixed=False)

    swept = sweep(plan_at, [NO_BANDWIDTH, 10 * GBPS, 100 * GBPS, ANY_BANDWIDTH])
    found = crossovers(swept)
    assert found
    assert all(each.low.bytes_per_s < each.high.bytes_per_s for each in found)
    assert swept[-1].per_gpu >= swept[0].per_gpu


def test_outputs_of_one_token_need_no_simulation_of_decoding():
    lengths = Lengths(prompts=np.full(8, 500.0), outputs=np.ones(8))
    question, phases = make_question(OPT_13B, lengths=lengths), []

    def evaluate(asks):
        phases.extend(ask.phase for ask in asks)
        return estimated(question)(asks)

    plan = DistServe(question, evaluate).high()
    assert plan is not None
    assert (plan.decode, plan.num_decode) == (TP1, 1)
    assert "decode" not in phases
