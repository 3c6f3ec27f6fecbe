from dataclasses import dataclass

import pytest

from cluster.topology.topology import Node
from deploy.target import with_share

pytestmark = pytest.mark.unit


@dataclass(frozen=True)
class Share:
    num_cpus: float
    num_gpus: float
    memory_bytes: int


def test_what_instances_use_on_a_node_is_there_for_their_deployment():
    node = Node(name="a", num_gpus=2, num_cpus=1.0, memory_bytes=1000)
    shared = with_share(node, [Share(0.5, 1.0, 200), Share(0.5, 1.0, 300)])
    assert shared == Node(name="a", num_gpus=4, num_cpus=2.0, memory_bytes=1500)


def test_what_is_not_known_of_a_node_stays_unknown():
    assert with_share(Node(name="a"), [Share(0.5, 0.0, 200)]) == Node(name="a")
