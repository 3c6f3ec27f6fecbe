"""A pool of equal instances: their role, what they may use, and their engine under vLLM's option names."""

from typing import Annotated, Literal

from pydantic import Field

from cluster.instance.config import EngineConfig
from cluster.spec.quantity import Bytes
from cluster.spec.schema import Count, Name, Part

_DEFAULTS = EngineConfig()


class Resources(Part):
    cpus: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Of each instance, as Ray counts them: fractions below 1, whole numbers above."""

    gpus: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Of each instance."""

    memory: Bytes | None = None
    """Of each instance, weights and KV cache included, such as 2GiB. Default: not limited."""


class Engine(Part):
    block_size: Annotated[int, Field(ge=1, le=1024)] = _DEFAULTS.block_size
    """Tokens in a KV block."""

    kv_cache_memory_bytes: Bytes = _DEFAULTS.kv_cache_memory_bytes
    """Memory for KV blocks in each instance, such as 256MiB."""

    max_num_seqs: Count = _DEFAULTS.max_num_seqs
    """Sequences in a step at most."""

    max_num_batched_tokens: Count | None = _DEFAULTS.max_num_batched_tokens
    """Tokens in a step at most. Default: the saturation length that the instance measures when it starts."""

    enable_prefix_caching: bool = _DEFAULTS.enable_prefix_caching
    """Keep finished blocks, and find them again by the hash of their tokens."""

    tensor_parallel_size: Count = _DEFAULTS.tensor_parallel_size
    """Ranks in an instance."""

    num_threads: Count | None = _DEFAULTS.num_threads
    """CPU threads in an instance. Default: resources.cpus, and at least 1."""

    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = _DEFAULTS.gpu_memory_utilization
    """On a GPU, the share of its memory that weights, steps and KV may take."""

    batch_invariant: bool = _DEFAULTS.batch_invariant
    """On a GPU, the same tokens whatever else is in the batch, at the price of speed."""

    stuck_after_s: Annotated[float, Field(ge=1, allow_inf_nan=False)] = _DEFAULTS.stuck_after_s
    """An instance of which no step ends for so long is stuck: it ends itself. Longer than any step takes."""


class Pool(Part):
    name: Name
    """Instances are called after it: NAME-0, NAME-1, ..."""

    role: Literal["prefill", "decode", "mixed"]
    replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    resources: Resources = Resources()
    engine: Engine = Engine()

    def instance_names(self) -> list[str]:
        return [f"{self.name}-{index}" for index in range(self.replicas)]
