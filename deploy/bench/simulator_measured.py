"""What was measured where the real cluster runs, and the simulated cluster that it makes."""

from dataclasses import dataclass
from typing import Any

from cluster.latency.fitted import FittedHardware
from cluster.latency.hardware import Parallelism
from cluster.latency.step_shape import StepShape
from cluster.role import InstanceRole
from cluster.spec.deployment import Deployment
from cluster.topology.topology import Topology
from deploy.bench.simulator_cluster import Alone
from deploy.simulating.capacity import num_blocks_of, saturation_tokens
from deploy.simulator.cluster import SimCluster, SimInstance


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """`steps`: of the prefill instance's core and of the decode instance's. `message_s`: one way between processes.

    `alone`: a request that decodes by itself in the real cluster; what is longer than the step the instance adds to it.
    """

    steps: list[FittedHardware]
    topology: Topology
    message_s: float
    alone: Alone

    @property
    def host_step_s(self) -> float:
        decode = self.steps[-1].coefficients
        (step_s,) = decode.stages_s(StepShape(num_decodes=1, decode_context=self.alone.context))
        return max(0.0, self.alone.itl_s - step_s)

    def cluster(self, deployment: Deployment, max_model_len: int) -> SimCluster:
        node = self.topology.nodes[0].name
        instances = []
        for index, (pool, hardware) in enumerate(zip(deployment.spec.pools, self.steps, strict=True)):
            latency = hardware.model(Parallelism())
            instances += [
                SimInstance(
                    name=name,
                    role=InstanceRole(pool.role),
                    node=node,
                    latency=latency,
                    num_blocks=num_blocks_of(pool, ("spec", "pools", index), hardware, on_gpu=False),
                    block_bytes=round(hardware.kv_bytes_per_token * pool.engine.block_size),
                    block_size=pool.engine.block_size,
                    max_model_len=max_model_len,
                    max_num_seqs=pool.engine.max_num_seqs,
                    saturation_tokens=saturation_tokens(latency, max_model_len),
                    token_budget=pool.engine.max_num_batched_tokens,
                    enable_prefix_caching=pool.engine.enable_prefix_caching,
                )
                for name in pool.instance_names()
            ]
        return SimCluster(
            instances=tuple(instances),
            topology=self.topology,
            message_s=self.message_s,
            host_step_s=self.host_step_s,
        )

    def as_json(self) -> dict[str, Any]:
        node = self.topology.nodes[0].name
        link = self.topology.link(node, node)
        return {
            "message_s": self.message_s,
            "host_step_s": self.host_step_s,
            "link_alpha_s": link.alpha_s if link else None,
            "link_beta_bytes_per_s": link.beta_bytes_per_s if link else None,
            "steps": [
                {
                    "device": hardware.device,
                    "prefill": _named(hardware.coefficients.prefill),
                    "decode": [_named(cost) for cost in hardware.coefficients.decode],
                    "residuals": {kind: _named(found) for kind, found in hardware.residuals.items()},
                }
                for hardware in self.steps
            ],
        }


def _named(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}
