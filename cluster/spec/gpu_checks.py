"""Whether the GPUs that a deployment asks for can hold it, as far as the machine at hand can tell."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cluster.spec.checkpoint import ELEMENT_BYTES, CheckpointFacts
from cluster.spec.deployment import Deployment
from cluster.spec.pool import Pool
from cluster.spec.problem import Problem, YamlPath
from cluster.spec.quantity import format_bytes

FindGpus = Callable[[], "GpusHere"]
"""Takes seconds: asked only where it matters."""


@dataclass(frozen=True, slots=True)
class GpusHere:
    """`memory_bytes`: of each. `flaw`: why there are none, or instances could not use them: what is missing, and in
    which version.
    """

    memory_bytes: tuple[int, ...] = ()
    flaw: str = ""


def check_gpus(deployment: Deployment, facts: CheckpointFacts, find: FindGpus) -> Iterator[Problem]:
    """Nothing where there are none: then this is not the machine, or Ray says so."""
    if not _asking(deployment) or not (gpus := find()).memory_bytes:
        return
    num_asked = 0.0
    for index, pool in enumerate(deployment.spec.pools):
        if pool.resources.gpus:
            path: YamlPath = ("spec", "pools", index, "resources", "gpus")
            problems = list(_pool(pool, path, facts, ELEMENT_BYTES[deployment.spec.model.dtype], gpus))
            num_asked += pool.resources.gpus * pool.replicas
            if not problems and num_asked > len(gpus.memory_bytes):
                message = f"all instances to here need {num_asked:g} GPUs; this machine has {len(gpus.memory_bytes)}"
                problems = [Problem(path=path, message=f"is {pool.resources.gpus:g}, and {message}")]
            yield from problems


def unchecked(deployment: Deployment, find: FindGpus | None) -> str:
    """What instances find out only when they start; nothing where that is nothing. `find` None: they run elsewhere."""
    pools = _asking(deployment)
    gpus = find() if pools and find else None
    if not pools or (gpus and gpus.memory_bytes):
        return ""
    why = gpus.flaw if gpus else "instances run on other machines"
    return (
        f"not checked: whether the GPUs of {', '.join(pools)} hold the weights, and cupy and NCCL ({why}); "
        "an instance that finds them wanting does not start"
    )


def _asking(deployment: Deployment) -> list[str]:
    return [pool.name for pool in deployment.spec.pools if pool.resources.gpus]


def _pool(pool: Pool, path: YamlPath, facts: CheckpointFacts, element_bytes: int, gpus: GpusHere) -> Iterator[Problem]:
    if gpus.flaw:
        message = f"is {pool.resources.gpus:g}, and no instance could use a GPU here: {gpus.flaw}"
        yield Problem(path=path, message=message)
        return
    if pool.resources.gpus > len(gpus.memory_bytes):
        message = f"is {pool.resources.gpus:g} for an instance; this machine has {len(gpus.memory_bytes)}"
        yield Problem(path=path, message=message)
        return
    num_ranks, utilization = pool.engine.tensor_parallel_size, pool.engine.gpu_memory_utilization
    weight_bytes = facts.num_parameters * element_bytes // num_ranks  # the embedding, which all have, is not cut
    usable_bytes = int(max(gpus.memory_bytes) * utilization)
    if weight_bytes > usable_bytes:
        message = (
            f"is {pool.resources.gpus:g}, and the weights take at least {format_bytes(weight_bytes)} of each GPU of an "
            f"instance; the largest here has {format_bytes(max(gpus.memory_bytes))}, of which {utilization:.0%} may be "
            "used: "
            f"{format_bytes(weight_bytes - usable_bytes)} are missing; "
            "a larger engine.tensor_parallel_size needs less of each"
        )
        yield Problem(path=path, message=message)
