"""Hardware by the names that people type: a GPU, and a model's shape."""

from cluster.latency.distserve import GPU, DistServeHardware
from cluster.latency.hardware import Hardware


def hardware_named(gpu: str, shape: str) -> Hardware:
    """`gpu` distserve-a100: OPT as DistServe measured it. ValueError lists what is known."""
    if gpu == GPU:
        return DistServeHardware(shape)
    raise ValueError(f"GPU {gpu!r} is not known; known are {GPU}")
