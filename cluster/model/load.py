"""From a checkpoint directory to a model that runs."""

from pathlib import Path

import torch

from cluster.model.checkpoint import CPU, Checkpoint, Weights
from cluster.model.config import ARCHITECTURES, ModelConfig
from cluster.model.decoder import Decoder, MakeLayer
from cluster.model.errors import CheckpointError
from cluster.model.llama import llama_layer
from cluster.model.parallel import Alone, Communicator
from cluster.model.qwen3 import qwen3_layer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
LAYERS: dict[str, MakeLayer] = dict(zip(ARCHITECTURES, (llama_layer, qwen3_layer), strict=True))


def load_model(
    path: str | Path,
    dtype: torch.dtype | None = None,
    communicator: Communicator | None = None,
    device: torch.device = CPU,
    weights: Weights | None = None,
) -> Decoder:
    """The part of the model at `path` that the communicator's rank holds (None: all), in `dtype` (None: its own).

    `weights`: those of that part, in that `dtype` and on that `device`; None: they are read from `path`.

    Raises `CheckpointError` for what is wrong with the files and `UnsupportedParallelism` for ranks that cannot share.
    """
    config = ModelConfig.from_checkpoint(path)
    if weights is None:
        weights = Checkpoint(path, dtype or _dtype(config, path), device)
    with torch.inference_mode():
        return Decoder(config, weights, LAYERS[config.architecture], communicator or Alone())


def _dtype(config: ModelConfig, path: str | Path) -> torch.dtype:
    if config.dtype not in DTYPES:
        problem = f"{config.dtype!r} is not supported (only {', '.join(DTYPES)}); ask for one of them when loading"
        raise CheckpointError(Path(path) / "config.json", problem, item="dtype")
    return DTYPES[config.dtype]
