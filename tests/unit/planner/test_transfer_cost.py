from itertools import product

import numpy as np
import pytest

from cluster.topology.topology import Flow, Node, Topology
from deploy.planner.placement import Traffic
from deploy.planner.transfer_cost import TransferCost
from tests.unit.planner.factories import TRAFFIC, make_cluster, make_pool

pytestmark = pytest.mark.unit


def one_by_one_s(topology, pools, traffic, counts):
    """The same mean, written out over single instances."""
    instances = [
        (pool, node) for pool, row in zip(pools, counts, strict=True) for node, n in enumerate(row) for _ in range(n)
    ]
    prefills = [at for at, (pool, _) in enumerate(instances) if pool.can_prefill]
    decodes = [at for at, (pool, _) in enumerate(instances) if pool.can_decode]
    total_s = 0.0
    for source, target in product(prefills, decodes):
        if source == target:
            continue
        n, m = instances[source][1], instances[target][1]
        others = [instances[at][1] for at in prefills if at != source]
        to = [sum(instances[at][1] == node for at in decodes) / len(decodes) for node in range(len(topology))]
        flows = traffic.num_in_flight
        on_link = 1 + flows * sum(place == n for place in others) * to[m]
        seconds = traffic.request_bytes / topology.beta_bytes_per_s[n, m] * on_link
        if n != m:
            out = 1 + flows * sum(place == n for place in others) * (1 - to[n])
            into = 1 + flows * sum(place != m for place in others) * to[m]
            # A prefill instance on m is not among the others that send to m over its network.
            seconds = max(
                seconds,
                traffic.request_bytes * out / topology.nodes[n].egress_bytes_per_s,
                traffic.request_bytes * into / topology.nodes[m].ingress_bytes_per_s,
            )
        total_s += topology.alpha_s[n, m] + seconds
    return total_s / (len(prefills) * len(decodes))


@pytest.mark.parametrize("in_flight", [0.0, 0.5, 1.0])
def test_the_mean_is_what_single_instances_add_up_to(rng, in_flight):
    topology = make_cluster(4, rng)
    pools = [make_pool("prefill", 3), make_pool("decode", 4), make_pool("mixed", 2)]
    traffic = Traffic(request_bytes=50e6, num_in_flight=in_flight)
    cost = TransferCost(topology, pools, traffic)
    for _ in range(10):
        counts = np.array([rng.multinomial(pool.num_instances, [0.25] * 4) for pool in pools])
        assert cost.mean_s(counts) == pytest.approx(one_by_one_s(topology, pools, traffic, counts))


def test_the_change_is_the_difference(rng):
    topology = make_cluster(6, rng)
    pools = [make_pool("prefill", 4), make_pool("decode", 5), make_pool("mixed", 3)]
    cost = TransferCost(topology, pools, TRAFFIC)
    for _ in range(20):
        counts = np.array([rng.multinomial(pool.num_instances, [1 / 6] * 6) for pool in pools])
        pool = int(rng.integers(3))
        source = int(rng.choice(np.nonzero(counts[pool])[0]))
        target = (source + 1 + int(rng.integers(5))) % 6
        changed = counts.copy()
        changed[pool, source] -= 1
        changed[pool, target] += 1
        change_s = cost.changes_s(counts, changed[None], np.array([[source, target]]))[0]
        assert change_s == pytest.approx(cost.mean_s(changed) - cost.mean_s(counts))
        assert cost.means_s(changed[None])[0] == pytest.approx(cost.mean_s(changed))


def test_as_many_flows_as_there_are_prefill_instances_share_as_the_topology_predicts():
    nodes = [Node(name="p", num_gpus=4, egress_bytes_per_s=1e9), *(Node(name=f"d{at}", num_gpus=1) for at in range(4))]
    topology = Topology(nodes, np.zeros((5, 5)), np.full((5, 5), 5e9))
    cost = TransferCost(topology, [make_pool("prefill", 4), make_pool("decode", 4)], TRAFFIC)
    counts = np.array([[4, 0, 0, 0, 0], [0, 1, 1, 1, 1]])
    others = [Flow(source="p", target=f"d{at}") for at in range(1, 4)]
    assert cost.mean_s(counts) == pytest.approx(topology.predict("p", "d0", TRAFFIC.request_bytes, others))
