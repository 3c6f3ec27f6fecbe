"""Clusters of two kinds of GPUs: large ones part by part, and rates for which every node is needed."""

from functools import cache

import pytest

from deploy.planner.goodput.candidates import Catalogue
from deploy.planner.goodput.check import CHECKED_GPUS, Check
from deploy.planner.goodput.find_plans import Search, find_plans
from deploy.planner.goodput.layout import Ground
from deploy.planner.goodput.question import Infeasible, Slos
from deploy.planner.goodput.unit import Unit
from deploy.planner.goodput.whole import WORTH_IT, Part
from tests.unit.planner.goodput.factories import (
    CHAT,
    OPT_13B,
    estimated,
    make_question,
    make_topology,
    make_unit,
    slower,
)

pytestmark = pytest.mark.unit

EASY = Slos(ttft_s=1.0, tpot_s=0.1)
SLOWER = slower(1.6)


@cache
def halves(num_nodes):
    """A check, and a part for each half of the nodes."""
    names = [f"n{at}" for at in range(num_nodes)]
    slow = names[num_nodes // 2 :]
    question = make_question(topology=make_topology(num_nodes, 8), others=dict.fromkeys(slow, SLOWER), slos=EASY)
    kinds = {name: hardware.name for name, hardware in question.hardware.items()}
    catalogue = Catalogue(question)
    ground = Ground(question.topology, kinds, question.request_bytes)
    check = Check(question, ground, catalogue, estimated(question), lambda _: None)
    parts = []
    for hardware, shape, nodes in (
        (OPT_13B, ((2, 1), (1, 1)), names[: num_nodes // 2]),
        (SLOWER, ((4, 1), (2, 2)), slow),
    ):
        unit = make_unit(*shape, kind=hardware.name)
        parts.append(
            Part(unit=unit, goodput=catalogue.candidate(unit).estimate, nodes=tuple(nodes), num_gpus=4 * num_nodes)
        )
    return check, parts


@pytest.mark.parametrize("num_nodes", [12, 16])
def test_what_many_nodes_of_two_kinds_serve_is_what_each_kind_serves_by_itself(num_nodes):
    check, parts = halves(num_nodes)
    plan = check.most(parts)
    alone = sum(part.goodput * own.number for part, own in zip(parts, plan.parts, strict=True))
    assert plan.goodput == pytest.approx(alone, rel=0.12)
    assert plan.num_gpus > CHECKED_GPUS >= plan.num_checked_gpus
    assert 0.9 <= plan.attainment.both <= 1.0


def test_each_kind_holds_its_own_units():
    check, parts = halves(12)
    plan = check.most(parts)
    assert [(part.unit, part.number) for part in plan.parts] == [
        (part.unit, number) for part, number in zip(parts, (12, 6), strict=True)
    ]
    for seat in plan.layout.seats:
        own = next(part for part in parts if part.unit.kinds == (seat.pool.kind,))
        assert seat.node in own.nodes


def test_a_unit_on_two_kinds_of_many_nodes_has_room():
    check, (fast, slow) = halves(12)
    across = Unit(pools=(fast.unit.pools[0], slow.unit.pools[1]))
    part = Part(unit=across, goodput=fast.goodput / 2, nodes=fast.nodes + slow.nodes, num_gpus=12 * across.num_gpus)
    plan = check.most([part])
    assert plan.num_gpus == 12 * across.num_gpus
    assert plan.goodput > 0.0


def test_a_rate_that_takes_a_slow_node_is_met():
    topology, slow = make_topology(2, 4), slower(1.9)
    alone = [make_question(hardware, make_topology(1, 4), slos=CHAT[OPT_13B]) for hardware in (OPT_13B, slow)]
    fast_rate, slow_rate = (find_plans(each, estimated(each)).best.goodput for each in alone)
    assert slow_rate < WORTH_IT * fast_rate
    rate = fast_rate + 0.8 * slow_rate
    question = make_question(topology=topology, others={"n1": slow}, rate=rate)
    plan = find_plans(question, estimated(question)).best
    assert plan.goodput >= rate
    assert {seat.node for seat in plan.layout.seats} == {"n0", "n1"}


def test_a_rate_is_refused_with_what_was_found():
    question = make_question(topology=make_topology(2, 4), others={"n1": slower(1.9)}, rate=17.5)
    search = Search(question, estimated(question))
    with pytest.raises(
        Infeasible, match=r"17.5 requests a second are too many: the most .* of 8 GPUs, serves"
    ) as raised:
        search.plans(search.best_plan(is_mixed=False), search.best_plan(is_mixed=True))
    said = float(str(raised.value).split("serves ")[1].split(" ")[0])
    again = make_question(topology=question.topology, others={"n1": slower(1.9)}, rate=0.95 * said)
    assert find_plans(again, estimated(again)).best.goodput >= 0.95 * said
