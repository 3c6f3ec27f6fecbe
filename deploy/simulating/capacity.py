"""What an instance of a pool can hold, and how much it takes in a step."""

from cluster.latency.hardware import DoesNotFit, Hardware, Parallelism, UnknownParallelism
from cluster.latency.latency_model import LatencyModel
from cluster.spec.pool import Pool
from cluster.spec.problem import Problem, YamlPath
from cluster.spec.quantity import format_bytes


class CannotRun(ValueError):
    """A pool's instances cannot be; `problem` names the field."""

    def __init__(self, path: YamlPath, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(path=path, message=message)


def parallelism_of(pool: Pool) -> Parallelism:
    return Parallelism(tp=pool.engine.tensor_parallel_size)


def latency_of(pool: Pool, path: YamlPath, hardware: Hardware) -> LatencyModel:
    """CannotRun: nothing is known of so many ranks."""
    try:
        return hardware.model(parallelism_of(pool))
    except UnknownParallelism as error:
        raise CannotRun((*path, "engine", "tensor_parallel_size"), str(error)) from error


def num_blocks_of(pool: Pool, path: YamlPath, hardware: Hardware, *, on_gpu: bool) -> int:
    """KV memory as the deployment says; on a GPU all that its weights leave, where it says nothing. CannotRun."""
    engine = pool.engine
    given = engine.kv_cache_memory_bytes if "kv_cache_memory_bytes" in engine.model_fields_set or not on_gpu else None
    block_bytes = hardware.kv_bytes_per_token * engine.block_size
    if not on_gpu:
        return _at_least_one(int((given or 0) / block_bytes), (*path, "engine", "kv_cache_memory_bytes"), block_bytes)
    try:
        num_tokens = hardware.num_kv_tokens(parallelism_of(pool))
    except DoesNotFit as error:
        raise CannotRun((*path, "engine", "tensor_parallel_size"), str(error)) from error
    except UnknownParallelism as error:
        raise CannotRun((*path, "engine", "tensor_parallel_size"), str(error)) from error
    left_bytes = num_tokens * hardware.kv_bytes_per_token
    field: YamlPath = (*path, "engine", "kv_cache_memory_bytes")
    if given is not None and given > left_bytes:
        message = (
            f"is {format_bytes(given)}; beside the weights {hardware.name} leaves {format_bytes(left_bytes)} at "
            f"{parallelism_of(pool)} ({format_bytes(given - left_bytes)} too many)"
        )
        raise CannotRun(field, message)
    return _at_least_one(int((left_bytes if given is None else given) / block_bytes), field, block_bytes)


def _at_least_one(num_blocks: int, field: YamlPath, block_bytes: float) -> int:
    if num_blocks < 1:
        raise CannotRun(field, f"is less than one block of {format_bytes(block_bytes)}")
    return num_blocks
