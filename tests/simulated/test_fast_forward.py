"""Steps that are passed over all at once come to exactly what they come to one by one."""

import math
from dataclasses import astuple

import pytest

from deploy.simulator import Report, SimCluster, simulate
from deploy.workload.request import WorkloadRequest
from tests.simulated.clusters import Kept, any_cluster, cluster, workload

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
    return slow, fast


# Between them: handovers, migrations, preemption, prefix hits, deaths, late starts, messages that take a while.
@pytest.mark.parametrize("seed", range(24))
def test_any_cluster_comes_to_the_same_either_way(seed):
    slow, fast = assert_equal_outcomes(*any_cluster(seed))
    assert fast.num_events <= slow.num_events


def test_a_machine_that_reads_only_so_much_at_once_takes_turns_either_way():
    made = cluster("pd", shape={"max_context_tokens": 1200, "num_blocks": 4000})
    assert_equal_outcomes(made, workload(1, 60, 20.0))


def test_few_events_are_left_of_many_steps():
    requests = [WorkloadRequest(arrival_s=0.0, num_prompt_tokens=10, num_output_tokens=2000)]
    slow, fast = assert_equal_outcomes(cluster("pd"), requests)
    assert sum(use.num_steps for use in fast.instances) == sum(use.num_steps for use in slow.instances) == 2000
    assert fast.num_events < slow.num_events / 5
