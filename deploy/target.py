"""What should run: the instances and the router that a deployment asks for."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from cluster.instance.config import EngineConfig, HandoverConfig, InstanceConfig, InstanceInfo, WeightsPeer
from cluster.links.config import LinkConfig
from cluster.links.link_end import rank_addresses
from cluster.role import InstanceRole
from cluster.secret import ClusterSecret
from cluster.spec.deployment import Deployment
from cluster.spec.pool import Pool
from router.config import RouterConfig, RouterInfo
from router.policies import ReschedulingConfig

MAX_WEIGHTS_PEERS = 4
"""Each gives its weights to one at a time: who is refused asks the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceTarget:
    """Of all ranks together; `memory_bytes` 0: not limited."""

    config: InstanceConfig
    num_cpus: float
    num_gpus: float
    memory_bytes: int

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def num_ranks(self) -> int:
        return self.config.engine.tensor_parallel_size

    @property
    def of_a_rank(self) -> "InstanceTarget":
        """Its share: all have the same."""
        count = self.num_ranks
        return replace(
            self,
            num_cpus=self.num_cpus / count,
            num_gpus=self.num_gpus / count,
            memory_bytes=self.memory_bytes // count,
        )


def resources(targets: Iterable[InstanceTarget]) -> dict[str, float]:
    """What they use together, by Ray's names; nothing of what none of them uses."""
    targets = list(targets)
    used = {
        "CPU": sum(target.num_cpus for target in targets),
        "GPU": sum(target.num_gpus for target in targets),
        "memory": float(sum(target.memory_bytes for target in targets)),
    }
    return {resource: amount for resource, amount in used.items() if amount}


def instance_targets(deployment: Deployment, secret: ClusterSecret) -> tuple[InstanceTarget, ...]:
    return tuple(
        InstanceTarget(
            config=_instance_config(deployment, pool, name, secret),
            num_cpus=pool.resources.cpus,
            num_gpus=pool.resources.gpus,
            memory_bytes=pool.resources.memory or 0,
        )
        for pool in deployment.spec.pools
        for name in pool.instance_names()
    )


def with_weights_peers(target: InstanceTarget, running: Iterable[InstanceInfo]) -> InstanceTarget:
    """Whom its next life asks for the weights: instances of as many ranks, each of which holds the same part."""
    peers = [
        WeightsPeer(name=info.name, incarnation=info.incarnation, link_address=info.link_address)
        for info in sorted(running, key=lambda info: info.name)
        if info.name != target.name and len(rank_addresses(info.link_address)) == target.num_ranks
    ]
    return replace(target, config=replace(target.config, weights_peers=tuple(peers[:MAX_WEIGHTS_PEERS])))


def _instance_config(deployment: Deployment, pool: Pool, name: str, secret: ClusterSecret) -> InstanceConfig:
    spec = deployment.spec
    engine = pool.engine.model_dump()
    engine["num_threads"] = pool.engine.num_threads or max(
        1, int(pool.resources.cpus / pool.engine.tensor_parallel_size)
    )
    engine["device"] = "cuda" if pool.resources.gpus else "cpu"
    return InstanceConfig(
        name=name,
        role=InstanceRole(pool.role),
        model_path=spec.model.path,
        secret=secret,
        engine=EngineConfig(**engine, dtype=spec.model.dtype, max_model_len=spec.model.max_model_len),
        links=LinkConfig(**spec.links.model_dump()),
        handover=HandoverConfig(**spec.handover.model_dump()),
        front_timeout_s=spec.router.suspect_after_s,
        grace_s=spec.router.grace_s,
        retention_s=spec.router.retention_s,
    )


def router_config(deployment: Deployment, secret: ClusterSecret, term: int) -> RouterConfig:
    spec = deployment.spec
    return RouterConfig(
        name="router",
        deployment=deployment.metadata.name,
        model_name=spec.model.served_model_name or spec.model.path,
        model_path=spec.model.path,
        secret=secret,
        term=term,
        grpc_host=spec.fronts.grpc.host,
        grpc_port=spec.fronts.grpc.port,
        http_host=spec.fronts.http.host,
        http_port=spec.fronts.http.port,
        max_model_len=spec.model.max_model_len,
        **{**spec.router.model_dump(), "rescheduling": ReschedulingConfig(**spec.router.rescheduling.model_dump())},
    )


def same_ports(config: RouterConfig, before: RouterInfo) -> RouterConfig:
    """Where the life before listened: clients come back to it, also to ports that were drawn."""
    grpc_port, http_port = (int(it.rpartition(":")[2]) for it in (before.grpc_address, before.http_address))
    return replace(config, grpc_port=grpc_port, http_port=http_port)
