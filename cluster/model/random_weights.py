"""A model of any shape with random weights, made where it is to run: for benchmarks, without a checkpoint's files."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cluster.model.checkpoint import Checkpoint
from cluster.model.config import ModelConfig
from cluster.model.decoder import Decoder
from cluster.model.load import LAYERS
from cluster.model.parallel import Alone, Communicator


class RandomWeights(Checkpoint):
    """Small enough that hidden states stay finite through any number of layers; norms are 1."""

    def __init__(self, dtype: torch.dtype, device: torch.device, seed: int = 0) -> None:
        self.directory = Path("random weights")
        self.dtype = dtype
        self.device = device
        self._generator = torch.Generator(device).manual_seed(seed)

    def _read(self, name: str, shape: tuple[int, ...], wanted: Any) -> Tensor:
        if len(shape) == 1:
            return torch.full(shape, float(name.endswith("norm.weight")), dtype=self.dtype, device=self.device)[wanted]
        rows = torch.empty(shape, dtype=self.dtype, device=self.device)
        return rows.normal_(std=shape[-1] ** -0.5, generator=self._generator)[wanted].contiguous()

    def check_all_used(self, *, ignore: tuple[str, ...]) -> None:
        """There is no file with anything else in it."""


def random_model(
    config: ModelConfig, dtype: torch.dtype, device: torch.device, communicator: Communicator | None = None
) -> Decoder:
    with torch.inference_mode():
        return Decoder(config, RandomWeights(dtype, device), LAYERS[config.architecture], communicator or Alone())


def llama_3_8b() -> ModelConfig:
    """The shape of Llama-3-8B (meta-llama/Meta-Llama-3-8B, config.json)."""
    return ModelConfig(
        architecture="LlamaForCausalLM",
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_layers=32,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        max_model_len=8192,
        rms_norm_eps=1e-5,
        rope_theta=500_000.0,
        rope_scaling=None,
        attention_bias=False,
        tie_word_embeddings=False,
        dtype="bfloat16",
        eos_token_ids=(128001,),
    )
