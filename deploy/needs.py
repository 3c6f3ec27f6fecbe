"""What a deployment's pools need of nodes, and what its requests will move between them."""

from pathlib import Path

from cluster.spec.checkpoint import ELEMENT_BYTES, CheckpointFacts
from cluster.spec.checks import PROCESS_BYTES
from cluster.spec.deployment import Deployment
from cluster.spec.pool import Pool
from cluster.spec.problem import YamlPath
from deploy.planner.placement import PoolNeeds

EXPECTED_PROMPT_TOKENS = 2048
"""Of a request, where nobody has said otherwise."""

# Where in a pool's YAML it stands what a node has too little of.
_PLACES: dict[str, YamlPath] = {
    "gpus": ("resources", "gpus"),
    "cpus": ("resources", "cpus"),
    "memory": ("resources", "memory"),
    "gpu_memory": ("engine", "kv_cache_memory_bytes"),
    "replicas": ("replicas",),
}


def needs_of(deployment: Deployment) -> list[PoolNeeds]:
    """Of each pool, in the order of the YAML. Its checkpoint has to be there."""
    model = deployment.spec.model
    weight_bytes = CheckpointFacts.read(Path(model.path)).num_parameters * ELEMENT_BYTES[model.dtype]
    return [_needs(pool, weight_bytes) for pool in deployment.spec.pools]


def request_bytes(deployment: Deployment, num_prompt_tokens: int) -> int:
    """KV that a request of so many prompt tokens takes along: in whole blocks."""
    model = deployment.spec.model
    token_bytes = CheckpointFacts.read(Path(model.path)).kv_elements_per_token * ELEMENT_BYTES[model.dtype]
    block_size = deployment.spec.pools[0].engine.block_size
    return -(-num_prompt_tokens // block_size) * block_size * token_bytes


def alike_pools(deployment: Deployment) -> list[frozenset[str]]:
    """Pools whose instances differ in nothing but their role, by names: two of them could exchange it."""
    groups: list[tuple[Pool, set[str]]] = []
    for pool in deployment.spec.pools:
        bare = pool.model_copy(update={"name": "", "role": "mixed", "replicas": 1})
        group = next((names for other, names in groups if other == bare), None)
        if group is None:
            groups.append((bare, {pool.name}))
        else:
            group.add(pool.name)
    return [frozenset(names) for _, names in groups if len(names) > 1]


def place_in_yaml(deployment: Deployment, pool: str, field: str) -> YamlPath:
    """The path of what `NoRoom` speaks of."""
    index = next(index for index, each in enumerate(deployment.spec.pools) if each.name == pool)
    return ("spec", "pools", index, *_PLACES[field])


def _needs(pool: Pool, weight_bytes: int) -> PoolNeeds:
    """Weights and KV are in GPU memory, split over an instance's GPUs; without GPUs they are in the host's."""
    gpus = pool.resources.gpus
    held_bytes = weight_bytes + pool.engine.kv_cache_memory_bytes
    own_bytes = PROCESS_BYTES if gpus else PROCESS_BYTES + held_bytes
    return PoolNeeds(
        name=pool.name,
        role=pool.role,
        num_instances=pool.replicas,
        num_gpus=gpus,
        num_cpus=pool.resources.cpus,
        memory_bytes=pool.resources.memory or own_bytes,
        gpu_memory_bytes=int(held_bytes / max(1.0, gpus)) if gpus else 0,
    )
