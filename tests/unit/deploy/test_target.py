from dataclasses import replace

import pytest

from cluster.handshake import draw_secret
from deploy.ray_nodes import RayNode
from deploy.target import instance_targets, resources
from tests.unit.deploy.fake_cluster import make_deployment

pytestmark = pytest.mark.unit


def target(**changes):
    return replace(instance_targets(make_deployment(), draw_secret())[0], **changes)


def test_what_instances_use_is_summed_and_what_none_uses_is_left_out():
    shares = [
        target(num_cpus=0.5, num_gpus=0.0, memory_bytes=200),
        target(num_cpus=0.5, num_gpus=0.0, memory_bytes=300),
    ]
    assert resources(shares) == {"CPU": 1.0, "memory": 500.0}
    assert resources([]) == {}


def test_what_instances_use_on_a_node_is_there_for_their_deployment():
    node = RayNode(node_id="1", name="a", address="10.0.0.1", free={"GPU": 0.5, "CPU": 1.0, "memory": 1000.0})
    shares = [target(num_cpus=0.5, num_gpus=0.75, memory_bytes=200)] * 2
    free = node.with_free(resources(shares))
    assert (free.num_gpus, free.num_cpus, free.memory_bytes) == (2, 2.0, 1400), "pieces of GPUs make whole ones"
