import numpy as np
import pytest

from cluster.latency.coefficients import CoefficientModel, DecodeCost, PrefillCost
from cluster.latency.fitted import FittedHardware
from cluster.topology.link_model import LinkModel
from cluster.topology.topology import Node, Topology
from deploy.bench.simulator import RECORDED
from deploy.bench.simulator_cluster import TOKEN_BUDGET, Alone, one_of_each
from deploy.bench.simulator_measured import Measured
from deploy.bench.simulator_sides import as_json, compare
from deploy.simulating.simulated import run
from deploy.workload.read import read_workload

pytestmark = pytest.mark.unit


def figures(ttft, tpot):
    return {
        f"p{percentile}_{name}_ms": value
        for name, value in (("ttft", ttft), ("tpot", tpot), ("second_token", 1.0), ("e2el", 1.0))
        for percentile in (50, 90)
    }


def make_measured(itl_s=0.012):
    model = CoefficientModel(
        prefill=PrefillCost(fixed_s=0.02, s_per_token=7e-4, s_per_square=0.0),
        decode=(DecodeCost(fixed_s=0.009, s_per_context_token=0.0, s_per_sequence=1e-3),),
    )
    fitted = FittedHardware(
        model_name="small",
        device="cpu",
        dtype="float32",
        kv_bytes_per_token=8192,
        kv_memory_bytes=256 << 20,
        coefficients=model,
    )
    link = LinkModel(alpha_s=3e-4, beta_bytes_per_s=1e9)
    return Measured(
        steps=[fitted, fitted],
        topology=Topology.of_links([Node(name="here")], {("here", "here"): link}),
        message_s=5e-4,
        alone=Alone(itl_s=itl_s, context=176),
    )


def test_medians_may_differ_by_15_percent_and_p90_by_25():
    rows = compare(figures(100.0, 10.0), figures(120.0, 9.0))
    judged = {(row.name, row.percentile): row.is_within for row in rows if row.limit is not None}
    assert judged == {("ttft", 50): False, ("ttft", 90): True, ("tpot", 50): True, ("tpot", 90): True}
    assert as_json(rows)[0]["difference"] == pytest.approx(0.2)


def test_an_instance_adds_what_a_step_does_not_explain():
    assert make_measured(itl_s=0.012).host_step_s == pytest.approx(0.002)
    assert make_measured(itl_s=0.008).host_step_s == 0.0


def test_what_was_measured_makes_a_cluster_that_serves_the_recorded_workload(tmp_path):
    requests = read_workload(RECORDED)[:20]
    cluster = make_measured().cluster(one_of_each(tmp_path), 2048)
    assert [instance.num_blocks for instance in cluster.instances] == [2048, 2048]
    assert {instance.token_budget for instance in cluster.instances} == {TOKEN_BUDGET}
    found = run(cluster, requests, {}).figures
    assert found["completed"] == 20
    assert found["p50_tpot_ms"] > 12.0
    assert np.isfinite(found["p90_second_token_ms"])
