"""Made-up clusters and workloads for the simulator, small enough to be short of everything."""

import random
from dataclasses import dataclass, field, replace

import numpy as np

from cluster.instance.config import HandoverConfig
from cluster.latency.coefficients import CoefficientModel, DecodeCost, PrefillCost
from cluster.role import InstanceRole
from cluster.topology.topology import Node, Topology
from deploy.simulator import Death, RequestRecord, SimCluster, SimInstance
from deploy.workload.request import WorkloadRequest
from router.policies import ReschedulingConfig

LATENCY = CoefficientModel(
    prefill=PrefillCost(fixed_s=4e-3, s_per_token=1e-4, s_per_square=7e-9),
    decode=(
        DecodeCost(fixed_s=7e-3, s_per_context_token=6e-7, s_per_sequence=4e-5),
        DecodeCost(from_batch=8, fixed_s=6e-3, s_per_context_token=5e-7, s_per_sequence=15e-5),
    ),
)

EAGER = ReschedulingConfig(
    policy="load_balance",
    interval_s=0.4,
    source_below_steps=400.0,
    target_above_steps=500.0,
    cooldown_rounds=2,
    margin_steps=10.0,
)
"""Moves requests at the least difference."""


@dataclass(slots=True)
class Kept:
    """A recorder that keeps everything."""

    records: dict[int, RequestRecord] = field(default_factory=dict)
    num_waits: int = 0
    waits_s: float = 0.0

    def ended(self, record: RequestRecord) -> None:
        assert record.number not in self.records, "a request ended twice"
        self.records[record.number] = record

    def waited(self, seconds: float, count: int) -> None:
        assert seconds >= 0.0
        self.num_waits += count
        self.waits_s += seconds * count


def network(num_nodes: int, *, beta: float = 2e9, alpha_s: float = 1e-4, cable: float | None = None) -> Topology:
    """Nodes n0, n1, ...; what is within one has nowhere to travel."""
    nodes = [Node(name=f"n{at}", egress_bytes_per_s=cable, ingress_bytes_per_s=cable) for at in range(num_nodes)]
    betas, alphas = (np.full((num_nodes, num_nodes), value) for value in (beta, alpha_s))
    for matrix in (betas, alphas):
        np.fill_diagonal(matrix, np.nan)
    return Topology(nodes, alphas, betas)


def instance(name: str, role: InstanceRole, node: str, **options: object) -> SimInstance:
    shape: dict[str, object] = {"num_blocks": 400, "block_bytes": 100_000, "max_model_len": 4096, "max_num_seqs": 32}
    shape |= {"saturation_tokens": 512, "latency": LATENCY}
    return SimInstance(name=name, role=role, node=node, **{**shape, **options})  # type: ignore[arg-type]


def cluster(roles: str, **options: object) -> SimCluster:
    """One instance a node: p, d or m for each."""
    kinds = {"p": InstanceRole.PREFILL, "d": InstanceRole.DECODE, "m": InstanceRole.MIXED}
    shape = options.pop("shape", {})
    assert isinstance(shape, dict)
    instances = tuple(instance(f"{role}{at}", kinds[role], f"n{at}", **shape) for at, role in enumerate(roles))
    return SimCluster(instances=instances, **{"topology": network(len(roles)), **options})  # type: ignore[arg-type]


def workload(seed: int, num_requests: int, rate: float, *, shared: bool = False) -> list[WorkloadRequest]:
    draw = random.Random(seed)
    now_s, requests = 0.0, []
    for _ in range(num_requests):
        now_s += draw.expovariate(rate)
        num_prompt = int(draw.lognormvariate(5.0, 0.8)) + 1
        hash_ids = tuple(draw.randrange(4) * 100 + at for at in range(num_prompt // 64)) if shared else ()
        requests.append(
            WorkloadRequest(
                arrival_s=now_s,
                num_prompt_tokens=min(num_prompt, 1500),
                num_output_tokens=min(1 + int(draw.expovariate(1 / 60)), 400),
                hash_ids=hash_ids,
                hash_block_tokens=64,
            )
        )
    return requests


def any_cluster(seed: int) -> tuple[SimCluster, list[WorkloadRequest]]:
    """Of any make, under any load."""
    draw = random.Random(seed)
    roles = draw.choice(("pd", "m", "mm", "ppdd", "pdm", "pddd", "ppd"))
    made = cluster(
        roles,
        shape={
            "num_blocks": draw.choice((120, 400, 4000)),
            "block_size": draw.choice((1, 16)) if draw.random() < 0.3 else 16,
            "enable_prefix_caching": draw.random() < 0.7,
            "max_num_seqs": draw.choice((4, 32, 256)),
            "latency": replace(LATENCY, num_stages=draw.choice((1, 1, 1, 2, 3))),
            "max_context_tokens": draw.choice((None, None, 1000, 4000)),
        },
        topology=network(len(roles), beta=draw.choice((2e8, 2e9, 1e11)), cable=draw.choice((None, 5e8))),
        policy=draw.choice(("least_time", "least_loaded")),
        message_s=draw.choice((0.0, 0.0, 3e-4)),
        host_step_s=draw.choice((0.0, 1e-3)),
        rescheduling=replace(EAGER, policy=draw.choice(("none", "load_balance"))),
        handover=HandoverConfig(piece_bytes=1 << 20, headroom_blocks=2),
        deaths=_deaths(draw, roles),
        start_up_s={f"{roles[-1]}{len(roles) - 1}": draw.choice((0.0, 1.5))},
    )
    rate = draw.choice((3.0, 15.0, 60.0)) * len(roles) / 2
    return made, workload(seed, 120, rate, shared=draw.random() < 0.4)


def _deaths(draw: random.Random, roles: str) -> tuple[Death, ...]:
    if draw.random() < 0.7:
        return ()
    at = draw.randrange(len(roles))
    return (Death(at_s=draw.uniform(0.5, 4.0), instance=f"{roles[at]}{at}", back_after_s=draw.choice((0.5, 3.0))),)
