import pytest

from cluster.latency.fit import TimedStep
from cluster.latency.step_shape import StepShape
from cluster.topology.link_model import LinkModel
from cluster.topology.topology import Node, Topology
from deploy.bench.outcome import Outcome
from deploy.bench.simulator import RECORDED
from deploy.bench.simulator_cluster import TOKEN_BUDGET, one_of_each
from deploy.bench.simulator_measured import Measured
from deploy.bench.simulator_sides import as_json, compare
from deploy.bench.simulator_steps import Expected, expected_batch, steady_step
from deploy.simulating.simulated import run
from deploy.workload.read import read_workload

pytestmark = pytest.mark.unit


def figures(ttft, tpot):
    return {
        f"p{percentile}_{name}_ms": value
        for name, value in (("ttft", ttft), ("tpot", tpot), ("second_token", 1.0), ("e2el", 1.0))
        for percentile in (50, 90)
    }


def prompt_step(length):
    return TimedStep(StepShape(length, float(length**2)), 0.02 + 7e-4 * length)


def decode_step(batch, context=100):
    return TimedStep(StepShape(0, 0.0, batch, batch * context), 0.009 + 1e-3 * batch)


def make_measured():
    link = LinkModel(alpha_s=3e-4, beta_bytes_per_s=1e9)
    return Measured(
        steps=[*map(prompt_step, (16, 64, 256)), *map(decode_step, (1, 2, 8)), decode_step(4, 500)],
        topology=Topology.of_links([Node(name="here")], {("here", "here"): link}),
        message_s=5e-4,
        num_blocks=2048,
        block_bytes=131_072,
        max_model_len=2048,
    )


def stream(first_s, step_s, num_tokens, num_prompt_tokens=100):
    times_s = [first_s + at * step_s for at in range(num_tokens)]
    return Outcome(
        num_prompt_tokens=num_prompt_tokens, start_s=0.0, token_times_s=times_s, num_output_tokens=num_tokens
    )


def test_medians_may_differ_by_15_percent_and_p90_by_25():
    rows = compare(figures(100.0, 10.0), figures(120.0, 9.0))
    judged = {(row.name, row.percentile): row.is_within for row in rows if row.limit is not None}
    assert judged == {("ttft", 50): False, ("ttft", 90): True, ("tpot", 50): True, ("tpot", 90): True}
    assert as_json(rows)[0]["difference"] == pytest.approx(0.2)


def test_a_step_is_timed_while_all_of_its_sequences_decode():
    (step,) = steady_step([stream(0.0, 0.01, 101), stream(0.2, 0.01, 101)])
    assert step.seconds == pytest.approx(0.01)
    assert step.shape.num_decodes == 2
    assert step.shape.decode_context == pytest.approx(2 * 100 + 60.5 + 40.5, abs=2)  # between 0.21 s and 1 s


def test_too_few_common_steps_say_nothing():
    assert steady_step([stream(0.0, 0.01, 30), stream(0.2, 0.01, 30)]) == []


def test_as_many_decode_as_come_while_one_does():
    steps = [decode_step(batch) for batch in (1, 2, 4, 8)]
    assert expected_batch(steps, Expected(rate=2.0, num_prompt_tokens=100, num_output_tokens=100)) == 4
    assert expected_batch(steps, Expected(rate=90.0, num_prompt_tokens=100, num_output_tokens=100)) == 8


def test_what_was_measured_makes_a_cluster_that_serves_the_recorded_workload(tmp_path):
    cluster = make_measured().cluster(one_of_each(tmp_path))
    assert {instance.token_budget for instance in cluster.instances} == {TOKEN_BUDGET}
    found = run(cluster, read_workload(RECORDED)[:20], {}).figures
    assert found["completed"] == 20
    assert 10.0 < found["p50_tpot_ms"] < 20.0
    assert found["p50_second_token_ms"] > found["p50_tpot_ms"]
