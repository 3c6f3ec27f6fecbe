"""The whole search, with an evaluator in closed form."""

from dataclasses import replace

import numpy as np
import pytest

from cluster.topology.topology import Topology
from deploy.planner.goodput.bound import layout_bound
from deploy.planner.goodput.candidates import Catalogue, disaggregated_units
from deploy.planner.goodput.evaluation import Ask
from deploy.planner.goodput.find_plans import Search, find_plans
from deploy.planner.goodput.layout import Ground
from deploy.planner.goodput.question import Infeasible, Lengths, Slos
from deploy.planner.goodput.runnable import obstacles
from tests.unit.planner.goodput.factories import (
    GBPS,
    OPT_13B,
    OPT_66B,
    estimated,
    make_question,
    make_topology,
    slower,
)

pytestmark = pytest.mark.unit

EASY = Slos(ttft_s=1.0, tpot_s=0.1)


def plans_of(question):
    return find_plans(question, estimated(question))


def test_it_finds_what_trying_all_units_finds():
    question = make_question(topology=make_topology(1, 4))
    search = Search(question, estimated(question))
    found = search.best_plan(is_mixed=False)
    kind, catalogue = OPT_13B.name, Catalogue(question)
    ground = Ground(question.topology, {"n0": kind}, question.request_bytes)
    goodputs = {}
    for unit in disaggregated_units(catalogue.pools("prefill", kind, 4), catalogue.pools("decode", kind, 4), 4):
        layout = ground.lay_out(unit)
        bound = layout_bound(layout, catalogue.rates_of, question.request_bytes)
        answer = estimated(question)([Ask(layout=layout, at_most=bound)])[0]
        goodputs[unit] = (answer.rate or 0.0) / unit.num_gpus
    assert found is not None
    assert found.per_gpu >= max(goodputs.values()) * 0.98


def test_the_best_of_opt_13b_on_four_gpus_has_two_to_prefill_and_one_to_decode():
    question = make_question(topology=make_topology(1, 4))
    apart = plans_of(question).disaggregated
    assert apart is not None
    assert [(pool.role, pool.parallelism.tp) for pool in apart.whole.pools] == [("prefill", 2), ("decode", 1)]


def test_colocated_instances_are_always_tried_and_compared():
    plans = plans_of(make_question(topology=make_topology(1, 4)))
    assert plans.mixed is not None
    assert plans.disaggregated is not None
    assert plans.best.per_gpu == max(plans.mixed.per_gpu, plans.disaggregated.per_gpu)
    assert plans.mixed.whole.is_mixed
    assert not plans.disaggregated.whole.is_mixed


def test_a_plan_fits_on_its_nodes():
    question = make_question(topology=make_topology(4, 8))
    for plan in (plans_of(question).best, plans_of(replace(question, num_gpus=11)).best):
        used = {
            node: sum(number * pool.num_gpus for pool, number in held.items())
            for node, held in plan.layout.per_node().items()
        }
        assert all(gpus <= 8 for gpus in used.values())
        assert sum(used.values()) == plan.num_gpus
    assert plan.num_gpus <= 11


def test_none_that_was_pruned_could_have_won():
    plans = plans_of(make_question(topology=make_topology(1, 8)))
    assert plans.effort.num_pruned > 0
    assert plans.effort.pruned_bound <= max(each.per_gpu for each in plans.scored) * 1.021
    assert all(each.per_gpu <= each.bound_per_gpu * 1.0001 for each in plans.scored)


def test_losers_say_why():
    plans = plans_of(make_question(topology=make_topology(1, 4)))
    assert plans.lost
    assert all(each.unit.split != plans.best.whole.split for each in plans.lost)
    assert any("TTFT" in each.why or "less per GPU" in each.why for each in plans.lost)


def test_a_rate_is_met_with_the_fewest_gpus():
    topology = make_topology(4, 8)
    few = plans_of(make_question(topology=topology, rate=3.0)).best
    more = plans_of(make_question(topology=topology, rate=40.0)).best
    assert few.goodput >= 3.0
    assert few.num_gpus <= 3
    assert more.goodput >= 40.0
    assert few.num_gpus < more.num_gpus <= 32


def test_a_rate_that_is_too_high_says_what_there_is():
    with pytest.raises(Infeasible, match=r"1000 requests a second are too many: .* no plan on 4 GPUs serves more than"):
        plans_of(make_question(topology=make_topology(1, 4), rate=1000.0))


def test_a_large_cluster_is_filled_with_copies():
    plans = plans_of(make_question(topology=make_topology(10, 8)))
    assert plans.best.num_gpus > 70
    assert plans.best.parts[0].number > 5
    assert plans.best.num_checked_gpus <= 64
    assert len(plans.best.layout.seats) == sum(pool.num_instances for pool in plans.best.whole.pools)


def test_pipelines_are_planned_only_when_they_are_allowed():
    question = make_question(OPT_66B)
    assert not any(each.unit.has_pp for each in plans_of(question).scored)
    allowed = plans_of(replace(question, topology=make_topology(1, 8), allow_pp=True))
    assert any(each.unit.has_pp for each in allowed.scored)
    with_pp = next(each.unit for each in allowed.scored if each.unit.has_pp)
    assert "pipeline parallelism" in obstacles(with_pp)


def test_a_node_with_slow_links_keeps_its_requests_to_itself():
    question = make_question(topology=make_topology(4, 8, between=25 * GBPS, slow=(2,)))
    apart = plans_of(question).disaggregated
    assert apart is not None
    roles = {pool.role for pool in apart.layout.per_node().get("n2", {})}
    assert roles in (set(), {"prefill", "decode"})


def test_a_slower_node_is_used_and_one_that_hurts_is_left_out():
    topology = make_topology(2, 8)
    fast = plans_of(make_question(topology=make_topology(1, 8))).best
    a_little = plans_of(make_question(topology=topology, others={"n1": slower(1.3)})).best
    assert {seat.node for seat in a_little.layout.seats} == {"n0", "n1"}
    assert a_little.goodput > fast.goodput
    much = plans_of(make_question(topology=topology, others={"n1": slower(8.0)})).best
    assert {seat.node for seat in much.layout.seats} == {"n0"}


def test_what_binds_is_named_with_by_how_much():
    def why(**given):
        with pytest.raises(Infeasible) as raised:
            plans_of(make_question(topology=make_topology(1, 4), **given))
        return str(raised.value)

    assert "TTFT: of 10 ms" in why(slos=Slos(ttft_s=0.01))
    assert "ms too long" in why(slos=Slos(ttft_s=0.01))
    assert "TPOT: of 1 ms" in why(slos=Slos(tpot_s=0.001))
    long = Lengths(prompts=np.full(3, 1e6), outputs=np.full(3, 10.0))
    assert "KV memory" in why(lengths=long)
    assert "too many" in why(lengths=long)
    with pytest.raises(Infeasible, match=r"do not fit into one GPU.*too many"):
        plans_of(make_question(OPT_66B, make_topology(4, 1)))


def test_questions_about_nothing_are_refused():
    with pytest.raises(Infeasible, match="no node"):
        make_question(topology=Topology([], np.zeros((0, 0)), np.zeros((0, 0))))
    with pytest.raises(Infeasible, match="no GPU"):
        make_question(topology=make_topology(2, 0))
    with pytest.raises(Infeasible, match="no request"):
        Lengths(prompts=np.zeros(0), outputs=np.zeros(0))
    with pytest.raises(Infeasible, match="needs an SLO"):
        make_question(slos=Slos())
    with pytest.raises(Infeasible, match="asks for nothing"):
        make_question(rate=0.0)


def test_plans_of_several_ranks_can_be_run():
    plans = plans_of(make_question(topology=make_topology(1, 4)))
    assert any(pool.parallelism.tp > 1 for pool in plans.best.whole.pools)
    assert obstacles(plans.best.whole) == []
    assert plans.runnable is plans.best


def test_no_plan_exceeds_the_bound_on_all_plans():
    for topology in (make_topology(1, 4), make_topology(2, 8)):
        question = make_question(topology=topology)
        search = Search(question, estimated(question))
        plans = search.plans(search.best_plan(is_mixed=False), search.best_plan(is_mixed=True))
        assert plans.effort.plan_bound >= 0.9999 * max(each.bound_per_gpu for each in plans.scored)
        assert plans.best.per_gpu <= plans.effort.plan_bound


def test_there_is_a_reason_why_prefill_and_decode_are_not_apart():
    one_gpu = plans_of(make_question(topology=make_topology(1, 1), slos=EASY))
    assert one_gpu.disaggregated is None
    assert "no room: a prefill instance TP1 and a decode instance TP1 need 2 GPUs" in one_gpu.why_not_disaggregated
    assert one_gpu.why_not_mixed == ""


def test_with_a_rate_losers_are_compared_with_the_plan_and_what_was_not_tried_is_counted():
    question = make_question(topology=make_topology(2, 8), rate=20.0)
    search = Search(question, estimated(question))
    plans = search.plans(None, search.best_plan(is_mixed=True))
    assert plans.effort.num_too_small > 0
    assert plans.effort.num_pruned == 0
    assert plans.lost
    assert all("per GPU" not in each.why for each in plans.lost)
    assert all(("serve" in each.why) and ("it with" in each.why) for each in plans.lost)
    assert 20.0 / plans.effort.plan_bound <= plans.best.num_gpus


def test_the_best_that_up_can_run_is_found_too():
    plans = plans_of(make_question(topology=make_topology(2, 8), others={"n1": slower(1.3)}))
    assert obstacles(plans.best.whole) == ["pools bound to kinds of nodes"]
    assert plans.runnable is not None
    assert obstacles(plans.runnable.whole) == []
    assert plans.runnable.goodput <= plans.best.goodput


@pytest.mark.parametrize("at_a_time", [1, 3])
def test_so_many_units_are_asked_about_at_once(at_a_time):
    question, sizes = make_question(topology=make_topology(1, 4)), []

    def evaluate(asks):
        sizes.append(len(asks))
        return estimated(question)(asks)

    find_plans(question, evaluate, at_a_time=at_a_time)
    assert sizes[0] == at_a_time


def test_instances_that_lie_alike_side_by_side_and_placed_together_are_simulated_once():
    question, wholes = make_question(), []

    def evaluate(asks):
        wholes.extend(ask.layout for ask in asks if ask.layout.num_nodes == 4 and not ask.above)
        return estimated(question)(asks)

    assert Search(question, evaluate).best_plan(is_mixed=False) is not None
    assert len(wholes) == len({str(sorted(layout.per_node().items())) for layout in wholes}) > 0
