"""What nothing can exceed: by computing, by memory, by links."""

from dataclasses import replace

import numpy as np
import pytest

from cluster.latency.hardware import Parallelism
from deploy.planner.goodput.bound import compute_bound, layout_bound, transfer_bound
from deploy.planner.goodput.candidates import Catalogue, disaggregated_units
from deploy.planner.goodput.find_plans import find_plans
from deploy.planner.goodput.layout import Ground
from deploy.planner.goodput.max_flow import MaxFlow
from deploy.planner.goodput.question import Infeasible, Lengths, Slos
from deploy.planner.goodput.unit import PoolPlan
from tests.unit.planner.goodput.factories import (
    CHAT,
    GBPS,
    OPT_13B,
    estimated,
    make_question,
    make_topology,
    make_unit,
    sharegpt_like,
)

pytestmark = pytest.mark.unit


def rates(tp=1, **given):
    return Catalogue(make_question(**given)).rates_of(
        PoolPlan(role="prefill", parallelism=Parallelism(tp), kind=OPT_13B.name)
    )


def ground_of(question):
    return Ground(
        question.topology, {name: each.name for name, each in question.hardware.items()}, question.request_bytes
    )


def test_prompts_cannot_come_faster_than_full_steps_compute_them():
    same = Lengths(prompts=np.full(4, 1024.0), outputs=np.full(4, 2.0))
    alone_s = sum(OPT_13B.model(Parallelism(1)).stages_s(_whole_prompt(1024)))
    assert rates(lengths=same, slos=Slos(ttft_s=1.0)).prefill_bound == pytest.approx(1 / alone_s, rel=0.05)


def _whole_prompt(num_tokens):
    from cluster.latency.step_shape import StepShape

    return StepShape(num_prefill_tokens=num_tokens, prefill_squares=float(num_tokens**2))


def test_an_instance_too_slow_for_one_prompt_serves_none():
    assert rates(slos=Slos(ttft_s=0.05)).prefill_bound == 0.0
    assert rates(4, slos=Slos(ttft_s=0.2)).prefill_bound > 0.0


def test_decode_is_bounded_by_memory_by_seats_and_by_tpot():
    plenty = rates(slos=Slos(tpot_s=0.1))
    assert plenty.max_batch == int(plenty.num_kv_tokens / plenty.context)
    strict = rates(slos=Slos(tpot_s=0.022))
    assert 0.0 < strict.decode_bound < plenty.decode_bound
    assert rates(slos=Slos(tpot_s=0.001)).decode_bound == 0.0


def test_requests_longer_than_memory_are_served_by_none():
    long = Lengths(prompts=np.full(3, 1e6), outputs=np.full(3, 10.0))
    assert rates(lengths=long, slos=Slos(tpot_s=0.1)).decode_bound == 0.0


def test_who_no_instance_holds_costs_nothing_and_counts_as_missed():
    """The plan of 50 requests is that of the same and one which is too long, and so are bounds and rates."""
    fit = sharegpt_like(50)
    spoilt = Lengths(prompts=np.append(fit.prompts, 2e6), outputs=np.append(fit.outputs, 10.0))
    without, beside = (make_question(topology=make_topology(1, 4), lengths=lengths) for lengths in (fit, spoilt))
    assert beside.request_bytes == without.request_bytes
    plain, found = (find_plans(question, estimated(question)) for question in (without, beside))
    assert found.mixed is not None
    assert found.best.whole.split == plain.best.whole.split
    assert found.best.goodput == pytest.approx(plain.best.goodput, rel=0.15)
    assert found.effort.plan_bound == pytest.approx(plain.effort.plan_bound * 51 / 50)
    strict = make_question(topology=make_topology(1, 4), lengths=spoilt, slos=replace(CHAT[OPT_13B], attainment=0.99))
    with pytest.raises(Infeasible, match="KV memory: 99% of the requests have up to 2000010 tokens"):
        find_plans(strict, estimated(strict))


def test_a_unit_is_bounded_by_its_weaker_phase():
    catalogue = Catalogue(make_question())
    one = compute_bound(make_unit((2, 1), (1, 1)), catalogue.rates_of)
    assert compute_bound(make_unit((2, 4), (1, 1)), catalogue.rates_of) == one
    assert compute_bound(make_unit((2, 1), (1, 2)), catalogue.rates_of) > one


def test_what_links_carry_bounds_a_unit_that_lies_across_them():
    question = make_question(topology=make_topology(2, 2, between=10 * GBPS))
    catalogue, unit = Catalogue(question), make_unit((2, 1), (1, 2))
    layout = ground_of(question).lay_out(unit)
    assert layout is not None
    assert layout.num_nodes == 2
    bound = transfer_bound(layout, catalogue.rates_of, question.request_bytes)
    assert bound == pytest.approx(10 * GBPS / question.request_bytes)
    assert layout_bound(layout, catalogue.rates_of, question.request_bytes) == bound


def test_egress_of_a_node_counts_too():
    topology = make_topology(2, 2, between=10 * GBPS)
    nodes = [replace(node, egress_bytes_per_s=1 * GBPS) for node in topology.nodes]
    slow = make_question(topology=type(topology)(nodes, topology.alpha_s, topology.beta_bytes_per_s))
    layout = ground_of(slow).lay_out(make_unit((2, 1), (1, 2)))
    assert layout is not None
    bound = transfer_bound(layout, Catalogue(slow).rates_of, slow.request_bytes)
    assert bound == pytest.approx(1 * GBPS / slow.request_bytes)


def test_the_maximum_flow_takes_all_ways_and_turns_back():
    flow = MaxFlow()
    for source, target, width in (("s", "a", 3), ("s", "b", 2), ("a", "b", 2), ("a", "t", 1), ("b", "t", 4)):
        flow.connect(source, target, width)
    assert flow.value("s", "t") == 5


def test_all_numbers_of_instances_that_fit_are_candidates():
    prefill, decode = (PoolPlan(role=role, parallelism=Parallelism(tp)) for role, tp in (("prefill", 2), ("decode", 1)))
    numbers = [tuple(pool.num_instances for pool in unit.pools) for unit in disaggregated_units([prefill], [decode], 5)]
    assert numbers == [(1, 1), (1, 2), (1, 3), (2, 1)]
