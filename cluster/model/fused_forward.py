"""A decoder's forward pass with everything between two matrix products in one kernel, by Triton or by Numba."""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from cluster.model.decoder import Decoder


class FusedAttention(Protocol):
    def turn_and_attend(self, layer: int, heads: Tensor, rotations: Tensor, norms: Tensor | None, eps: float) -> Tensor:
        """`Attention.attend` for heads that are neither rotated nor, where `norms` is given, normalised yet."""
        ...


class FusedLayers(Protocol):
    """A module of them: `triton_layers`, `numba_layers`."""

    def norm(self, hidden: Tensor, weight: Tensor, eps: float) -> Tensor: ...

    def add_norm(self, hidden: Tensor, added: Tensor, weight: Tensor, eps: float) -> Tensor: ...

    def silu_multiply(self, gate_up: Tensor) -> Tensor: ...


def fused_forward(
    model: Decoder, token_ids: Tensor, positions: Tensor, attention: FusedAttention, layers: FusedLayers
) -> Tensor:
    """What `Decoder.forward` gives, but for the order of roundings; `attention` has been planned."""
    rotations = torch.view_as_real(model.rope.rotations(positions))
    hidden = F.embedding(token_ids, model.embedding)
    normed = layers.norm(hidden, model.layers[0].attention_norm.weight, model.config.rms_norm_eps)
    for index, layer in enumerate(model.layers):
        own = layer.attention
        heads = own.qkv(normed).view(len(hidden), own.num_heads + 2 * own.num_kv_heads, -1)
        norms, eps = (None, 0.0) if own.head_norm is None else (own.head_norm.weight, own.head_norm.eps)
        attended = own.output(attention.turn_and_attend(index, heads, rotations, norms, eps))
        normed = layers.add_norm(hidden, attended, layer.mlp_norm.weight, layer.mlp_norm.eps)
        product = layer.mlp.down(layers.silu_multiply(layer.mlp.gate_up(normed)))
        if index + 1 == len(model.layers):
            return hidden.add_(product)
        following = model.layers[index + 1].attention_norm
        normed = layers.add_norm(hidden, product, following.weight, following.eps)
    raise AssertionError("a model has layers")
