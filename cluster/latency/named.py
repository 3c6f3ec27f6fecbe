"""Hardware by the names that people type: a GPU, and a model's shape."""

from cluster.latency import distserve
from cluster.latency.composed import ComposedHardware
from cluster.latency.distserve import DistServeHardware
from cluster.latency.gpus import GPU_NAMES, gpu_named
from cluster.latency.hardware import Hardware
from cluster.latency.known import UnknownName
from cluster.latency.shapes import shape_named

KNOWN_GPUS = (*GPU_NAMES, distserve.GPU)


def hardware_named(gpu: str, shape: str) -> Hardware:
    """`gpu` a100, h100, h200: put together from kernels, as a Python engine of 2023 ran them; a100-graphs and so on:
    without waiting for a host; distserve-a100: OPT as DistServe measured it.

    UnknownName, a ValueError, lists what is known.
    """
    if gpu == distserve.GPU:
        return DistServeHardware(shape)
    if gpu not in GPU_NAMES:
        raise UnknownName(f"GPU {gpu!r} is not known; known are {', '.join(KNOWN_GPUS)}")
    return ComposedHardware(shape_named(shape), gpu_named(gpu))
