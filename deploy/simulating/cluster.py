"""The deployment as a simulated cluster."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from cluster.instance.config import HandoverConfig
from cluster.latency.hardware import Hardware
from cluster.latency.saturation import measured_saturation
from cluster.role import InstanceRole
from cluster.spec.deployment import Deployment
from cluster.spec.problem import SpecError, YamlPath
from cluster.spec.yaml_source import read_yaml
from cluster.topology.topology import Topology
from deploy.no_room import spec_error
from deploy.planner.placement import NoRoom
from deploy.simulating.capacity import CannotRun, latency_of, num_blocks_of
from deploy.simulating.seats import one_node, seats_of
from deploy.simulator.cluster import Death, SimCluster, SimInstance
from deploy.workload.request import WorkloadRequest
from router.policies import ReschedulingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """What the instances run on. `on_gpu`: a rank has a GPU to itself; `max_model_len`: where the file says nothing."""

    hardware: Hardware
    on_gpu: bool
    max_model_len: int


def make_cluster(
    file: Path,
    deployment: Deployment,
    machines: Machines,
    topology: Topology | None,
    requests: Sequence[WorkloadRequest],
    *,
    deaths: tuple[Death, ...] = (),
    seed: int = 0,
) -> SimCluster:
    """SpecError for what cannot run or finds no room, with its place in `file`."""
    network = topology or one_node()
    usual_bytes = fmean(request.num_prompt_tokens for request in requests) * machines.hardware.kv_bytes_per_token
    try:
        seats = seats_of(deployment, network, usual_bytes, on_gpu=machines.on_gpu, seed=seed)
        instances = tuple(_instances(deployment, machines, seats))
    except NoRoom as error:
        raise spec_error(file, deployment, error) from error
    except CannotRun as error:
        lines = read_yaml(file.read_text(), str(file)).lines
        raise SpecError(str(file), [replace(error.problem, line=lines.get(error.problem.path))]) from error
    router = deployment.spec.router
    return SimCluster(
        instances=instances,
        topology=network,
        policy=router.policy,
        rescheduling=ReschedulingConfig(**router.rescheduling.model_dump()),
        handover=HandoverConfig(**deployment.spec.handover.model_dump()),
        suspect_after_s=router.suspect_after_s,
        max_queued_requests=router.max_queued_requests,
        seed=seed,
        deaths=deaths,
    )


def _instances(deployment: Deployment, machines: Machines, seats: dict[str, str]) -> list[SimInstance]:
    max_model_len = deployment.spec.model.max_model_len or machines.max_model_len
    found = []
    for index, pool in enumerate(deployment.spec.pools):
        path: YamlPath = ("spec", "pools", index)
        latency = latency_of(pool, path, machines.hardware)
        num_blocks = num_blocks_of(pool, path, machines.hardware, on_gpu=machines.on_gpu)
        found += [
            SimInstance(
                name=name,
                role=InstanceRole(pool.role),
                node=seats[name],
                latency=latency,
                num_blocks=num_blocks,
                block_bytes=max(1, round(machines.hardware.kv_bytes_per_token * pool.engine.block_size)),
                block_size=pool.engine.block_size,
                max_model_len=max_model_len,
                max_num_seqs=pool.engine.max_num_seqs,
                saturation_tokens=measured_saturation(latency, max_model_len),
                token_budget=pool.engine.max_num_batched_tokens,
                enable_prefix_caching=pool.engine.enable_prefix_caching,
            )
            for name in pool.instance_names()
        ]
    return found
