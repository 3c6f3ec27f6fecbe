"""A decoder's forward pass on a GPU: the same layers, with everything between two matrix products in one kernel."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cluster.model.decoder import Decoder
from cluster.model.layers import RMSNorm
from cluster.model.triton_attention import TritonAttention
from cluster.model.triton_layers import add_norm, norm, silu_multiply


class FusedNorm(RMSNorm):
    """In one kernel, and for each row by itself."""

    def __call__(self, hidden: Tensor) -> Tensor:
        return norm(hidden, self.weight, self.eps)


def fused_forward(model: Decoder, token_ids: Tensor, positions: Tensor, attention: TritonAttention) -> Tensor:
    """What `Decoder.forward` gives, but for the order of roundings; `attention` has been planned."""
    rotations = torch.view_as_real(model.rope.rotations(positions))
    hidden = F.embedding(token_ids, model.embedding)
    normed = norm(hidden, model.layers[0].attention_norm.weight, model.config.rms_norm_eps)
    for index, layer in enumerate(model.layers):
        own = layer.attention
        heads = own.qkv(normed).view(len(hidden), own.num_heads + 2 * own.num_kv_heads, -1)
        norms, eps = (None, 0.0) if own.head_norm is None else (own.head_norm.weight, own.head_norm.eps)
        attended = own.output(attention.turn_and_attend(index, heads, rotations, norms, eps))
        normed = add_norm(hidden, attended, layer.mlp_norm.weight, layer.mlp_norm.eps)
        product = layer.mlp.down(silu_multiply(layer.mlp.gate_up(normed)))
        if index + 1 == len(model.layers):
            return hidden.add_(product)
        following = model.layers[index + 1].attention_norm
        normed = add_norm(hidden, product, following.weight, following.eps)
    raise AssertionError("a model has layers")
