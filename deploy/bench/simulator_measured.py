"""What was measured where the real cluster runs, and the simulated cluster that it makes."""

from dataclasses import dataclass
from typing import Any

from cluster.latency.coefficients import CoefficientModel
from cluster.latency.fit import TimedStep, fit, residuals
from cluster.latency.saturation import measured_saturation
from cluster.role import InstanceRole
from cluster.spec.deployment import Deployment
from cluster.topology.topology import Topology
from deploy.errors import DeployError
from deploy.simulator.cluster import SimCluster, SimInstance


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """`message_s`: one way between processes. `num_blocks` and `block_bytes`: of each instance's KV."""

    steps: list[TimedStep]
    topology: Topology
    message_s: float
    num_blocks: int
    block_bytes: int
    max_model_len: int

    @property
    def latency(self) -> CoefficientModel:
        """DeployError: the machine was too busy for requests to decode together."""
        try:
            return fit(self.steps)
        except ValueError as error:
            raise DeployError(f"how long steps take could not be told: {error}") from error

    def cluster(self, deployment: Deployment) -> SimCluster:
        latency = self.latency
        return SimCluster(
            instances=tuple(
                SimInstance(
                    name=name,
                    role=InstanceRole(pool.role),
                    node=self.topology.nodes[0].name,
                    latency=latency,
                    num_blocks=self.num_blocks,
                    block_bytes=self.block_bytes,
                    block_size=pool.engine.block_size,
                    max_model_len=self.max_model_len,
                    max_num_seqs=pool.engine.max_num_seqs,
                    saturation_tokens=measured_saturation(latency, self.max_model_len),
                    token_budget=pool.engine.max_num_batched_tokens,
                    enable_prefix_caching=pool.engine.enable_prefix_caching,
                )
                for pool in deployment.spec.pools
                for name in pool.instance_names()
            ),
            topology=self.topology,
            message_s=self.message_s,
        )

    def of_kind(self) -> dict[str, list[TimedStep]]:
        return {
            "prefill": [step for step in self.steps if not step.shape.num_decodes],
            "decode": [step for step in self.steps if step.shape.num_decodes],
        }

    def as_json(self) -> dict[str, Any]:
        node, latency = self.topology.nodes[0].name, self.latency
        link = self.topology.link(node, node)
        return {
            "message_s": self.message_s,
            "link": _named(link) if link else None,
            "prefill": _named(latency.prefill),
            "decode": [_named(cost) for cost in latency.decode],
            "residuals": {kind: _named(residuals(latency, steps)) for kind, steps in self.of_kind().items()},
            "steps": [{**_named(step.shape), "seconds": step.seconds} for step in self.steps],
        }


def _named(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}
