"""Rotary position embeddings (RoFormer, arXiv:2104.09864), as a product of complex numbers.

Checkpoints pair dimension i with i + head_dim / 2. Loading permutes the rows of the query and key projections so that
the pairs stand side by side (`pair_rows`); a pair then is one complex number, and turning all heads is one in-place
product. Scores are sums over dimensions and do not see the order.
"""

import math

import torch
from torch import Tensor

from cluster.model.config import ModelConfig


class Rope:
    """Turns queries and keys by their positions."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self.inverse_frequencies = inverse_frequencies(config).to(device)  # [head_dim / 2]

    def rotations(self, positions: Tensor) -> Tensor:
        """Unit complex numbers [num_tokens, 1, head_dim / 2] for positions [num_tokens]."""
        angles = positions[:, None].float() * self.inverse_frequencies
        return torch.polar(torch.ones_like(angles), angles)[:, None]


def rotate_(heads: Tensor, rotations: Tensor) -> None:
    """Turns heads [num_tokens, num_heads, head_dim] in place."""
    pairs = heads.view(*heads.shape[:-1], -1, 2)
    if heads.dtype == torch.float32:
        torch.view_as_complex(pairs).mul_(rotations)
    else:  # there are no complex bf16 numbers
        pairs.copy_(torch.view_as_real(torch.view_as_complex(pairs.float()) * rotations))


def pair_rows(rows: Tensor, head_dim: int) -> Tensor:
    """Reorders [num_heads * head_dim, ...] from (first halves, second halves) to pairs, head by head."""
    return rows.view(-1, 2, head_dim // 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def unpair_rows(rows: Tensor, head_dim: int) -> Tensor:
    """The way back: what `pair_rows` was given."""
    return rows.view(-1, head_dim // 2, 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def inverse_frequencies(config: ModelConfig) -> Tensor:
    """Angle per position, [head_dim / 2]; with Llama-3 scaling, wavelengths beyond the old context are stretched."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)  # within the old context
    keep = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    return torch.lerp(frequencies / scaling.factor, frequencies, keep.clamp(0.0, 1.0))
