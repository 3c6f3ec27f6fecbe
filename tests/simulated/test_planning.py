"""The planner's evaluator: the simulator, asked for goodput."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from cluster.latency.distserve import DistServeHardware
from deploy.planner.goodput.bound import layout_bound
from deploy.planner.goodput.candidates import Catalogue
from deploy.planner.goodput.evaluation import Ask
from deploy.planner.goodput.layout import Ground
from deploy.planning.interval import confirmed_s, interval_s
from deploy.planning.plan import plan, setting_of
from deploy.planning.trial import run_trial
from deploy.planning.workers import Again, Workers
from tests.unit.planner.goodput.factories import CHAT, OPT_13B, make_question, make_topology, make_unit

pytestmark = pytest.mark.simulated

AS_MEASURED = DistServeHardware("opt-13b", with_call_overhead=True)


@pytest.fixture(scope="module")
def four_gpus():
    """OPT-13B on four A100s, with the overheads of calls that DistServe's simulator counts."""
    return make_question(AS_MEASURED, make_topology(1, 4), slos=CHAT[OPT_13B])


def layout_of(question, prefill, decode):
    ground = Ground(question.topology, {"n0": AS_MEASURED.name}, question.request_bytes)
    return ground.lay_out(make_unit(prefill, decode, kind=AS_MEASURED.name))


@pytest.mark.parametrize(
    ("prefill", "decode", "is_met"),
    [((2, 1), (1, 1), True), ((1, 2), (1, 1), False), ((1, 1), (1, 1), False)],
)
def test_opt_13b_serves_1_5_requests_per_gpu_only_with_two_ranks_to_prefill_and_one_to_decode(
    four_gpus, prefill, decode, is_met
):
    layout = layout_of(four_gpus, prefill, decode)
    found = run_trial(setting_of(four_gpus, simulated_s=40.0), layout, 1.5 * layout.unit.num_gpus)
    assert (found.both >= 0.9) is is_met


def test_goodput_is_found_by_bisection_and_the_same_in_other_processes(four_gpus):
    layout = layout_of(four_gpus, (2, 1), (1, 1))
    bound = layout_bound(layout, Catalogue(four_gpus).rates_of, four_gpus.request_bytes)
    setting = setting_of(four_gpus, simulated_s=4.0)
    too_slow = layout_of(four_gpus, (1, 1), (1, 1))
    asks = [Ask(layout=layout, at_most=bound), Ask(layout=too_slow, at_most=bound, above=3.0)]
    counted: list[int] = []
    with Workers(setting, 0, counted.append) as here:
        served, hopeless = here.evaluate(asks)
    assert counted == [1, 2]
    assert served.rate is not None
    assert served.rate > 3.0
    assert served.rate <= bound or served.is_beyond, "so short a trial may serve more than can be kept up"
    assert served.attainment.both >= 0.9
    assert hopeless.rate is None
    with Workers(setting, 1) as elsewhere:
        assert elsewhere.evaluate(asks) == [served, hopeless]


def test_what_is_confirmed_lasts_longer_and_only_its_second_half_is_judged(four_gpus):
    layout = layout_of(four_gpus, (2, 1), (1, 1))
    setting, long_s = setting_of(four_gpus, simulated_s=2.0), 12.0
    again = Again(layout=layout, seed=500, rate=4.0, interval_s=long_s, is_searched=False)
    with Workers(setting, 0) as workers:
        [found] = workers.evaluate_again([again])
    longer = replace(setting.with_seed(500), interval_s=long_s, warm_up=0.5)
    assert found.attainment == run_trial(longer, layout, 4.0, to_the_end=True)


def test_several_stays_are_confirmed_but_no_longer_than_the_search_or_some_thousand_requests_last(four_gpus):
    search_s = interval_s(four_gpus)
    assert confirmed_s(four_gpus, 1.0) == pytest.approx(5.0 * search_s)
    assert search_s < confirmed_s(four_gpus, 100.0) == pytest.approx(30.0)
    assert confirmed_s(four_gpus, 1e4) == search_s


def test_a_rough_answer_stops_a_little_beyond_what_can_be_served_in_the_long_run(four_gpus):
    layout = layout_of(four_gpus, (2, 1), (1, 1))
    with Workers(setting_of(four_gpus, simulated_s=8.0), 0) as workers:
        [found] = workers.evaluate([Ask(layout=layout, at_most=2.0, is_rough=True)])
    assert found.rate == pytest.approx(2.1)
    assert found.is_beyond


def test_a_phase_by_itself_serves_no_less_than_both(four_gpus):
    layout = layout_of(four_gpus, (2, 1), (1, 1))
    setting = setting_of(four_gpus, simulated_s=8.0)
    both, prefill, decode = (run_trial(setting, layout, 4.0, phase) for phase in (None, "prefill", "decode"))
    assert prefill.ttft >= both.ttft - 0.02
    assert decode.tpot >= both.tpot - 0.02
    assert prefill.tpot == decode.ttft == 1.0


def test_a_plan_is_confirmed_once(four_gpus, monkeypatch):
    plans = [
        SimpleNamespace(layout=layout_of(four_gpus, (2, 1), decode), name=decode) for decode in ((1, 1), (2, 1), (1, 1))
    ]
    confirmed = []

    def confirm(asked, *_):
        confirmed.append([each.name for each in asked])
        return [each.name for each in asked]

    def find_plans(question, evaluate, say, again, *_):
        return [again([plans[0], None, plans[1]]), again([plans[2]])]

    monkeypatch.setattr("deploy.planning.plan.confirm", confirm)
    monkeypatch.setattr("deploy.planning.plan.find_plans", find_plans)
    found = plan(four_gpus, num_processes=0, say=lambda _: None)
    assert found == [[(1, 1), None, (2, 1)], [(1, 1)]]
    assert confirmed == [[(1, 1), (2, 1)], []]
