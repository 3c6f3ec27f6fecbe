import numpy as np
import pytest

from cluster.topology.synthetic import limited, racks
from deploy.planner.drift import Drift, DriftConfig
from deploy.planner.planner import Planner
from tests.unit.planner.factories import TRAFFIC, make_pool

pytestmark = pytest.mark.unit


def test_it_takes_several_checks_in_a_row():
    drift = Drift(DriftConfig(margin=0.2, num_checks=3))
    assert [drift.check(10.0, best_s) for best_s in (7.0, 7.0, 9.0, 7.0, 7.0, 7.0)] == [False] * 5 + [True]


def test_it_calms_down_only_when_there_is_little_left_to_be_saved():
    drift = Drift(DriftConfig(margin=0.2, num_checks=1))
    assert [drift.check(10.0, best_s) for best_s in (7.0, 8.5, 9.5, 8.5)] == [True, True, False, False]


def test_nothing_can_be_saved_where_nothing_travels():
    assert not Drift(DriftConfig(num_checks=1)).check(0.0, 0.0)


def test_what_runs_is_compared_with_what_would_be_chosen_now():
    pools = [make_pool("prefill"), make_pool("decode", 2)]
    healthy = racks(1, 4, inside=10e9, between=10e9, num_gpus=1)
    planner = Planner(pools, healthy, TRAFFIC, np.random.default_rng(0))
    chosen = planner.plan().chosen
    running = {placed.instance: placed.node for placed in chosen.instances}
    assert planner.mean_s(running) == pytest.approx(chosen.cost_s)
    slowed = limited(healthy, [running["decode-0"]], 1e9)
    now = Planner(pools, slowed, TRAFFIC, np.random.default_rng(0))
    assert now.plan().chosen.cost_s < 0.5 * now.mean_s(running)
