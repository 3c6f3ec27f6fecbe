from pathlib import Path

import pytest

from cluster.latency.coefficients import CoefficientModel, DecodeCost, PrefillCost
from cluster.latency.fitted import FittedHardware
from cluster.latency.named import hardware_named
from cluster.latency.saturation import measured_saturation
from cluster.spec.deployment import Deployment
from cluster.topology.link_model import LinkModel
from cluster.topology.topology import Node, Topology
from deploy.simulating.cluster import Machines, make_cluster
from deploy.simulating.rates import parse_rates
from deploy.simulating.simulated import alike
from deploy.workload.request import WorkloadRequest
from tests.unit.spec.factories import make_document

pytestmark = pytest.mark.unit

REQUESTS = [WorkloadRequest(arrival_s=0.0, num_prompt_tokens=1000, num_output_tokens=10)]


def make_model(fixed_s=0.02, s_per_token=1e-3):
    return CoefficientModel(
        prefill=PrefillCost(fixed_s=fixed_s, s_per_token=s_per_token, s_per_square=0.0),
        decode=(DecodeCost(fixed_s=0.01, s_per_context_token=0.0, s_per_sequence=0.0),),
    )


def make_machines(gpu=None):
    if gpu is not None:
        return Machines(hardware=hardware_named(gpu, "llama-3-8b"), on_gpu=True, max_model_len=8192)
    hardware = FittedHardware(
        model_name="small",
        device="cpu",
        dtype="float32",
        kv_bytes_per_token=8192,
        kv_memory_bytes=1,
        coefficients=make_model(),
    )
    return Machines(hardware=hardware, on_gpu=False, max_model_len=2048)


def make_network():
    """Three nodes; the cable from a to c is slow."""
    names = "a", "b", "c"
    links = {
        (source, target): LinkModel(alpha_s=1e-4, beta_bytes_per_s=1e7 if {source, target} == {"a", "c"} else 1e9)
        for source in names
        for target in names
        if source != target
    }
    return Topology.of_links([Node(name=name, num_gpus=1) for name in names], links)


def make(machines, topology=None, **changes):
    pools = [
        {"name": "prefill", "role": "prefill", "replicas": 1},
        {"name": "decode", "role": "decode", "replicas": 2, "engine": {"max_num_batched_tokens": 300}},
    ]
    deployment = Deployment.model_validate(make_document(**{"pools": pools, **changes}))
    return make_cluster(Path("unread.yaml"), deployment, machines, topology, REQUESTS)


def test_instances_are_where_kv_travels_fastest():
    nodes = {instance.name: instance.node for instance in make(make_machines("h100"), make_network()).instances}
    assert nodes["prefill-0"] == "b"
    assert {nodes["decode-0"], nodes["decode-1"]} == {"a", "c"}


def test_spread_asks_no_link():
    cluster = make(make_machines("h100"), make_network(), placement={"policy": "spread"})
    assert {instance.name: instance.node for instance in cluster.instances}["prefill-0"] == "a"


def test_without_a_network_all_are_on_one_node():
    assert {instance.node for instance in make(make_machines()).instances} == {"node"}


def test_kv_memory_is_the_deployments_or_what_a_gpu_leaves():
    assert {instance.num_blocks for instance in make(make_machines()).instances} == {(256 << 20) // (16 * 8192)}
    left = hardware_named("h100", "llama-3-8b").num_kv_tokens(make_machines("h100").hardware.parallelisms()[0])
    assert {instance.num_blocks for instance in make(make_machines("h100")).instances} == {left // 16}


def test_engine_and_model_options_are_the_deployments():
    cluster = make(
        make_machines(), model={"path": "checkpoint", "max_model_len": 512}, router={"policy": "least_loaded"}
    )
    assert [instance.token_budget for instance in cluster.instances] == [None, 300, 300]
    assert {instance.max_model_len for instance in cluster.instances} == {512}
    assert cluster.policy == "least_loaded"
    assert cluster.max_queued_requests == 1024


@pytest.mark.parametrize(("fixed_s", "expected"), [(0.0, 16), (0.01, 128), (1.0, 512)])
def test_a_batch_saturates_at_nine_tenths_of_the_best_speed(fixed_s, expected):
    assert measured_saturation(make_model(fixed_s=fixed_s), 2048) == expected


def test_rates_are_put_in_order():
    assert parse_rates("4, 0.5,1,4") == [0.5, 1.0, 4.0]


def test_errors_that_differ_in_numbers_are_one():
    errors = {1: "a prompt of 900 tokens", 2: "no instance", 3: "a prompt of 70 tokens"}
    assert alike(errors) == [("a prompt of 900 tokens", 2, 2), ("no instance", 1, 3)]
