"""Dispatch by measured links against dispatch by load: a calculation over the policies, no engine."""

import numpy as np
import pytest

from cluster.role import InstanceRole
from cluster.topology.synthetic import racks
from cluster.topology.topology import Topology
from deploy.bench.dispatch_calculation import BY_LOAD, Calculation, Row
from deploy.bench.dispatch_machine import Machine
from deploy.workload.arrivals import draw_arrivals
from deploy.workload.request import WorkloadRequest

pytestmark = pytest.mark.simulated

NUM_RACKS, NODES_PER_RACK = 4, 3  # one prefill and two decode instances each
FAST, SLOW = 12.5e9, 1.25e9


def make_requests(num_requests: int = 600, seed: int = 1) -> list[WorkloadRequest]:
    """Log-normal lengths, a third of the prompts in conversations that go on from a common beginning."""
    rng = np.random.default_rng(seed)
    lengths = rng.lognormal((6.6, 4.2), (0.7, 0.6), (num_requests, 2)).astype(int) + 2
    requests = [
        WorkloadRequest(
            arrival_s=None,
            num_prompt_tokens=int(prompt),
            num_output_tokens=int(output),
            hash_ids=tuple(range(100 * (at % 7), 100 * (at % 7) + int(prompt) // 128)) if at % 3 == 0 else (),
            hash_block_tokens=128,
        )
        for at, (prompt, output) in enumerate(lengths)
    ]
    return draw_arrivals(requests, rate=1.0, seed=seed)


def run(policy: str, topology: Topology, requests: list[WorkloadRequest], error: float = 0.0) -> Row:
    roles = {
        node.name: InstanceRole.DECODE if at % NODES_PER_RACK else InstanceRole.PREFILL
        for at, node in enumerate(topology.nodes)
    }
    calculation = Calculation(load=0.7, machine=Machine(), policies=(), error=error)
    return calculation.run("made up", "", policy, topology, roles, calculation.paced(requests, NUM_RACKS))


def compare(topology: Topology, seed: int, error: float) -> tuple[Row, Row]:
    """`error`: what is believed of each link is off by a factor of about 1 ± that."""
    requests = make_requests(seed=seed)
    return run("least_time", topology, requests, error), run(BY_LOAD, topology, requests, error)


@pytest.mark.parametrize(("seed", "error"), [(1, 0.0), (2, 0.1)])
def test_over_unequal_links_the_second_token_comes_much_sooner_and_nothing_else_later(seed: int, error: float) -> None:
    ours, by_load = compare(racks(NUM_RACKS, NODES_PER_RACK, inside=FAST, between=SLOW), seed, error)
    assert ours.mean_second_token_ms <= 0.85 * by_load.mean_second_token_ms
    assert ours.p99_second_token_ms <= by_load.p99_second_token_ms
    assert ours.mean_ttft_ms <= 1.02 * by_load.mean_ttft_ms
    assert ours.mean_e2el_s <= 1.01 * by_load.mean_e2el_s


@pytest.mark.parametrize(("seed", "error"), [(1, 0.0), (1, 0.1), (2, 0.0), (2, 0.1)])
def test_over_equal_links_it_is_never_worse(seed: int, error: float) -> None:
    ours, by_load = compare(racks(NUM_RACKS, NODES_PER_RACK, inside=SLOW, between=SLOW), seed, error)
    assert ours.mean_second_token_ms <= 1.01 * by_load.mean_second_token_ms
    assert ours.mean_e2el_s <= 1.01 * by_load.mean_e2el_s


def test_the_same_requests_give_the_same_figures() -> None:
    topology = racks(NUM_RACKS, NODES_PER_RACK, inside=FAST, between=SLOW)
    first, second = (run("least_time", topology, make_requests(100)) for _ in range(2))
    assert first.mean_second_token_ms == second.mean_second_token_ms
    assert first.mean_e2el_s == second.mean_e2el_s
