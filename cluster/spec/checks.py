"""What no single field can tell: combinations that cannot work. Each check yields problems, and looks nothing up."""

from collections.abc import Iterator
from math import gcd

from cluster.spec.checkpoint import ELEMENT_BYTES, CheckpointFacts
from cluster.spec.deployment import Deployment, Rescheduling
from cluster.spec.pool import Pool
from cluster.spec.problem import Problem, YamlPath
from cluster.spec.quantity import format_bytes

# An instance before it has loaded anything: Python, torch, Ray's worker (measured as private memory on Linux).
PROCESS_BYTES = 250 << 20


def check_combinations(deployment: Deployment) -> Iterator[Problem]:
    yield from _pools(deployment.spec.pools)
    yield from _fronts(deployment)
    yield from _transport(deployment)
    yield from _weights(deployment)
    yield from _rescheduling(deployment.spec.router.rescheduling)
    for index, pool in enumerate(deployment.spec.pools):
        yield from _pool(pool, ("spec", "pools", index))


def _pools(pools: list[Pool]) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for index, pool in enumerate(pools):
        if first.setdefault(pool.name, index) != index:
            message = f"is {pool.name!r}, as is spec.pools[{first[pool.name]}].name; names have to differ"
            yield Problem(path=("spec", "pools", index, "name"), message=message)
    roles = {pool.role for pool in pools}
    for role, other in (("prefill", "decode"), ("decode", "prefill")):
        if role in roles and not roles & {other, "mixed"}:
            message = f"has a {role} pool but none that could {other}; add a pool with role {other}, or make it mixed"
            yield Problem(path=("spec", "pools"), message=message)


def _fronts(deployment: Deployment) -> Iterator[Problem]:
    grpc, http = deployment.spec.fronts.grpc, deployment.spec.fronts.http
    if grpc.port == http.port != 0:
        message = f"is {http.port}, as is spec.fronts.grpc.port; each front needs a port of its own"
        yield Problem(path=("spec", "fronts", "http", "port"), message=message)


def _rescheduling(rescheduling: Rescheduling) -> Iterator[Problem]:
    if rescheduling.target_above_steps < rescheduling.source_below_steps:
        message = (
            f"is {rescheduling.target_above_steps:g}, less than source_below_steps "
            f"({rescheduling.source_below_steps:g}): an instance would give and take at once"
        )
        yield Problem(path=("spec", "router", "rescheduling", "target_above_steps"), message=message)


def _transport(deployment: Deployment) -> Iterator[Problem]:
    hosted = [pool.name for pool in deployment.spec.pools if not pool.resources.gpus]
    if deployment.spec.links.transport == "nccl" and hosted:
        message = (
            f"is 'nccl', which moves KV between GPUs; pool {hosted[0]!r} has none, so its KV is in host memory: "
            "use 'auto', 'shm' or 'tcp', or give it resources.gpus"
        )
        yield Problem(path=("spec", "links", "transport"), message=message)


def _weights(deployment: Deployment) -> Iterator[Problem]:
    """Ranks hold parts: only an instance of as many has the same."""
    ranks = [pool.engine.tensor_parallel_size for pool in deployment.spec.pools for _ in range(pool.replicas)]
    if deployment.spec.model.weights_from == "peer" and len(set(ranks)) == len(ranks):
        message = (
            "is 'peer', and no two instances have the same tensor_parallel_size: "
            "none could give another its weights; use 'disk', or add replicas"
        )
        yield Problem(path=("spec", "model", "weights_from"), message=message)


def _pool(pool: Pool, path: YamlPath) -> Iterator[Problem]:
    engine = pool.engine
    if engine.max_num_batched_tokens is not None and engine.max_num_batched_tokens < engine.max_num_seqs:
        message = (
            f"is {engine.max_num_batched_tokens}, less than max_num_seqs ({engine.max_num_seqs}): "
            "each running sequence needs a token of every step; raise it, or lower max_num_seqs"
        )
        yield Problem(path=(*path, "engine", "max_num_batched_tokens"), message=message)
    num_ranks, num_gpus = engine.tensor_parallel_size, pool.resources.gpus
    if num_gpus and num_ranks > num_gpus:
        message = f"is {num_ranks}, and resources.gpus is {num_gpus:g}: each rank needs a GPU of its own"
        yield Problem(path=(*path, "engine", "tensor_parallel_size"), message=message)
    for name in ("cpus", "gpus"):
        amount = getattr(pool.resources, name) / num_ranks
        if amount > 1 and amount != int(amount):
            of = f", of {num_ranks} ranks {amount:g} each" if num_ranks > 1 else ""
            message = f"is {amount * num_ranks:g}{of}; above 1 Ray counts whole ones only"
            yield Problem(path=(*path, "resources", name), message=message)


def check_checkpoint(
    deployment: Deployment, facts: CheckpointFacts, machine_memory_bytes: int | None
) -> Iterator[Problem]:
    """`machine_memory_bytes` None: where the instances will run is not known here."""
    model = deployment.spec.model
    if model.max_model_len is not None and model.max_model_len > facts.max_model_len:
        message = f"is {model.max_model_len}; the checkpoint was made for {facts.max_model_len} at most"
        yield Problem(path=("spec", "model", "max_model_len"), message=message)
        return
    max_model_len = model.max_model_len or facts.max_model_len
    for index, pool in enumerate(deployment.spec.pools):
        path: YamlPath = ("spec", "pools", index)
        yield from _parallelism(pool, path, facts)
        yield from _kv_cache(pool, path, facts.kv_elements_per_token * ELEMENT_BYTES[model.dtype], max_model_len)
        yield from _memory(pool, path, facts.num_parameters * ELEMENT_BYTES[model.dtype], machine_memory_bytes)


def _parallelism(pool: Pool, path: YamlPath, facts: CheckpointFacts) -> Iterator[Problem]:
    num_ranks, shared = pool.engine.tensor_parallel_size, (facts.num_kv_heads, facts.num_heads, facts.intermediate_size)
    for count, what in zip(shared, ("KV heads", "attention heads", "MLP columns (intermediate_size)"), strict=True):
        if count % num_ranks:
            most = gcd(*shared)
            possible = ", ".join(str(size) for size in range(1, most + 1) if most % size == 0)
            message = (
                f"is {num_ranks}; so many ranks cannot share the checkpoint's {count} {what}: use one of {possible}"
            )
            yield Problem(path=(*path, "engine", "tensor_parallel_size"), message=message)
            return


def _kv_cache(pool: Pool, path: YamlPath, token_bytes: int, max_model_len: int) -> Iterator[Problem]:
    if pool.resources.gpus:  # they take what weights and steps leave
        return
    block_size = pool.engine.block_size
    num_tokens = pool.engine.kv_cache_memory_bytes // (token_bytes * block_size) * block_size
    if num_tokens < max_model_len:
        needed = -(-max_model_len // block_size) * block_size * token_bytes
        message = (
            f"holds {num_tokens} tokens, one request may have {max_model_len}; "
            f"give it at least {format_bytes(needed)}, or lower spec.model.max_model_len"
        )
        yield Problem(path=(*path, "engine", "kv_cache_memory_bytes"), message=message)


def _memory(pool: Pool, path: YamlPath, weight_bytes: int, machine_bytes: int | None) -> Iterator[Problem]:
    if pool.resources.gpus:
        return
    given = pool.resources.memory or machine_bytes
    needed = PROCESS_BYTES + weight_bytes + pool.engine.kv_cache_memory_bytes
    if given is not None and needed > given:
        where = "given" if pool.resources.memory else "in this machine"
        message = (
            f"an instance needs {format_bytes(needed)} (weights {format_bytes(weight_bytes)}, KV cache "
            f"{format_bytes(pool.engine.kv_cache_memory_bytes)}, process {format_bytes(PROCESS_BYTES)}); "
            f"{format_bytes(given)} {'are' if given > 1 else 'is'} {where}"
        )
        yield Problem(path=(*path, "resources", "memory"), message=message)
