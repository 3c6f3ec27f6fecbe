"""Steps that are passed over all at once come to exactly what they come to one by one."""

import math
from dataclasses import asdict, astuple, replace

import pytest

from cluster.instance.config import HandoverConfig
from deploy.simulator import Death, Report, SimCluster, simulate
from deploy.workload.request import WorkloadRequest
from tests.simulated.clusters import EAGER, LATENCY, Kept, any_cluster, cluster, network, workload

pytestmark = pytest.mark.simulated


def run(made: SimCluster, requests: list[WorkloadRequest], *, fast_forward: bool) -> tuple[Kept, Report]:
    kept = Kept()
    return kept, simulate(made, requests, recorder=kept, fast_forward=fast_forward)


def same(one: object, other: object) -> bool:
    are_nan = isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other)
    return one == other or are_nan


def assert_equal_outcomes(made: SimCluster, requests: list[WorkloadRequest]) -> tuple[Report, Report]:
    one_by_one, slow = run(made, requests, fast_forward=False)
    at_once, fast = run(made, requests, fast_forward=True)
    assert one_by_one.records.keys() == at_once.records.keys() == set(range(len(requests)))
    for number, record in one_by_one.records.items():
        found = at_once.records[number]
        assert all(map(same, astuple(record), astuple(found))), f"{record} became {found}"
    assert at_once.num_waits == one_by_one.num_waits
    assert at_once.waits_s == pytest.approx(one_by_one.waits_s)
    assert fast.handovers == slow.handovers
    assert fast.links == slow.links
    for use, other in zip(fast.instances, slow.instances, strict=True):
        assert asdict(use) == {**asdict(other), "busy_s": pytest.approx(other.busy_s)}
    return slow, fast


# Between them: handovers, migrations, preemption, prefix hits, deaths, late starts, messages that take a while.
@pytest.mark.parametrize("seed", range(24))
def test_any_cluster_comes_to_the_same_either_way(seed):
    slow, fast = assert_equal_outcomes(*any_cluster(seed))
    assert fast.num_events <= slow.num_events


def test_a_machine_that_reads_only_so_much_at_once_takes_turns_either_way():
    made = cluster("pd", shape={"max_context_tokens": 1200, "num_blocks": 4000})
    assert_equal_outcomes(made, workload(1, 60, 20.0))


def test_who_is_in_a_pipeline_stays_there_when_its_receiver_is_lost():
    made = cluster(
        "pddd",
        shape={"num_blocks": 120, "max_num_seqs": 256, "max_context_tokens": 2000},
        topology=network(4, cable=5e8),
        policy="least_loaded",
        message_s=5e-3,
        rescheduling=EAGER,
        handover=HandoverConfig(piece_bytes=1 << 20, headroom_blocks=2),
        deaths=(Death(at_s=1.16, instance="d2"),),
        start_up_s={"d3": 1.5},
    )
    deep = replace(LATENCY, num_stages=3)
    instances = tuple(replace(it, latency=deep) if it.name in ("p0", "d2") else it for it in made.instances)
    requests = [replace(it, arrival_s=round(it.arrival_s or 0.0, 1)) for it in workload(5050, 120, 30.0)]
    assert_equal_outcomes(replace(made, instances=instances), requests)


def test_messages_may_take_longer_than_steps():
    made = cluster("ppdd", message_s=0.02, policy="least_loaded")
    assert_equal_outcomes(made, workload(3, 60, 15.0))


def test_an_instance_counts_the_tokens_that_it_had_already():
    kept, report = run(cluster("pd"), workload(2, 40, 10.0, shared=True), fast_forward=True)
    num_cached = sum(record.num_cached_tokens for record in kept.records.values())
    assert sum(use.num_cached_tokens for use in report.instances) == num_cached > 0


def test_few_events_are_left_of_many_steps():
    requests = [WorkloadRequest(arrival_s=0.0, num_prompt_tokens=10, num_output_tokens=2000)]
    slow, fast = assert_equal_outcomes(cluster("pd"), requests)
    assert sum(use.num_steps for use in fast.instances) == sum(use.num_steps for use in slow.instances) == 2000
    assert fast.num_events < slow.num_events / 5
