"""What instances run on, by what was typed: a GPU and a model's shape, or a file that `baton profile` wrote."""

import json
from pathlib import Path
from typing import Any

from cluster.latency.composed import ComposedHardware
from cluster.latency.gpus import GPU_NAMES, gpu_named
from cluster.latency.hardware import Hardware
from cluster.latency.named import hardware_named
from cluster.latency.read import read_fitted
from cluster.latency.shapes import shape_of_config
from cluster.spec.deployment import Deployment
from deploy.errors import InputError
from deploy.simulating.cluster import Machines
from deploy.text_file import read_text

ANY_LENGTH = 1 << 20
"""Of a model of which nobody has said how long its requests may be: what an instance can hold decides."""


def machines_of(deployment: Deployment, gpu: str | None, shape: str | None, latency: Path | None) -> Machines:
    """`shape`: a name, or a config.json; without it the checkpoint's own. InputError lists what is known."""
    if latency is not None:
        if gpu or shape:
            raise InputError("--latency says how long steps take; --gpu and --model-shape would say it again")
        return Machines(
            hardware=read_fitted(read_text(latency), str(latency)), on_gpu=False, max_model_len=_context_of(deployment)
        )
    if gpu is None:
        raise InputError("how long steps take is not said: give --gpu and --model-shape, or --latency FILE")
    try:
        return _of_gpu(gpu, shape or deployment.spec.model.path)
    except ValueError as error:
        raise InputError(str(error)) from error


def _of_gpu(gpu: str, shape: str) -> Machines:
    path = Path(shape) / "config.json" if Path(shape).is_dir() else Path(shape)
    if path.suffix != ".json" or gpu not in GPU_NAMES:
        return Machines(hardware=hardware_named(gpu, shape), on_gpu=True, max_model_len=ANY_LENGTH)
    config = _read_config(path)
    hardware: Hardware = ComposedHardware(shape_of_config(config, str(path)), gpu_named(gpu))
    return Machines(hardware=hardware, on_gpu=True, max_model_len=config.get("max_position_embeddings") or ANY_LENGTH)


def _read_config(path: Path) -> dict[str, Any]:
    config = json.loads(path.read_text())
    if not isinstance(config, dict):
        raise InputError(f"{path} holds no object")
    return config


def _context_of(deployment: Deployment) -> int:
    path = Path(deployment.spec.model.path) / "config.json"
    return int(_read_config(path).get("max_position_embeddings") or ANY_LENGTH) if path.is_file() else ANY_LENGTH
