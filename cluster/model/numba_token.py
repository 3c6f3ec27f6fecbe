"""One token of one sequence through a whole decoder on a CPU: one call of a kernel for each layer, and none of torch.

What a single row takes is the time to read the weights, which torch's product needs a third longer for, and whatever
is between the products costs as much again to call as to compute.
"""

import numpy as np
import torch
from torch import Tensor

from cluster.model.decoder import Decoder, DecoderLayer
from cluster.model.kv_cache import KVCache
from cluster.model.linear import Linear
from cluster.model.numba_kernels import Buffers, DecodeStep, Floats, LayerWeights, decode_layer, multiply_row


class RowProduct:
    """A `Linear`'s product for one row."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """`weight` [out_features, in_features], contiguous."""
        self.weight: Floats = weight.numpy()
        self.bias: Floats = np.empty(0, np.float32) if bias is None else bias.numpy()

    def __call__(self, rows: Tensor) -> Tensor:
        product = rows.new_empty(1, len(self.weight))
        multiply_row(rows.numpy()[0], self.weight, self.bias, product.numpy()[0])
        return product


class TokenDecoder:
    """For a model that is whole in one process, in fp32. All its products of one row are the kernel's from then on."""

    def __init__(self, model: Decoder, kv_cache: KVCache) -> None:
        self._model, self._cache = model, kv_cache.tensor.numpy()
        self._eps = np.float32(model.config.rms_norm_eps)
        tied = model.embedding if model.config.tie_word_embeddings else None
        model.lm_head.row_product = _row_product(model.lm_head, tied)
        self._layers = [_weights(layer, model.config.head_dim) for layer in model.layers]
        self._buffers = _buffers(model)
        self._load_kernel()

    def forward(self, token_ids: Tensor, positions: Tensor, step: DecodeStep) -> Tensor:
        """Hidden state [1, hidden_size], until the next call."""
        rotations = torch.view_as_real(self._model.rope.rotations(positions)).squeeze(1).numpy()
        hidden = self._buffers.hidden
        hidden[0] = self._model.embedding[token_ids].numpy()
        for index, weights in enumerate(self._layers):
            decode_layer(weights, self._buffers, self._eps, rotations, self._cache, index, step)
        return torch.from_numpy(hidden)

    def _load_kernel(self) -> None:
        """Now, not at the first request: a token of nobody's goes through a layer, with a block for it alone."""
        num_kv_heads, head_dim = self._cache.shape[-2:]
        rotations = np.zeros((1, head_dim // 2, 2), np.float32)
        block, first = np.zeros((1, 2, 1, 1, num_kv_heads, head_dim), np.float32), np.zeros(1, np.int32)
        step = DecodeStep(tables=first[None], contexts=first + 1, order=first)
        decode_layer(self._layers[0], self._buffers, self._eps, rotations, block, 0, step)


def _weights(layer: DecoderLayer, head_dim: int) -> LayerWeights:
    attention, mlp = layer.attention, layer.mlp
    linears = (attention.qkv, attention.output, mlp.gate_up, mlp.down)
    products = []
    for linear in linears:
        assert isinstance(linear, Linear), "a part of a model has products that add up over its ranks"
        linear.row_product = _row_product(linear)
        products.append(linear.row_product)
    qkv, output, gate_up, down = products
    norms = np.empty((0, head_dim), np.float32) if attention.head_norm is None else attention.head_norm.weight.numpy()
    return LayerWeights(
        attention_norm=layer.attention_norm.weight.numpy(),
        qkv=qkv.weight,
        qkv_bias=qkv.bias,
        head_norms=norms,
        output=output.weight,
        output_bias=output.bias,
        mlp_norm=layer.mlp_norm.weight.numpy(),
        gate_up=gate_up.weight,
        down=down.weight,
        no_bias=np.empty(0, np.float32),
    )


def _row_product(linear: Linear, weight: Tensor | None = None) -> RowProduct:
    return RowProduct(linear.dense() if weight is None else weight, linear.bias)


def _buffers(model: Decoder) -> Buffers:
    def zeros(*shape: int) -> Floats:
        return np.zeros((1, *shape), np.float32)

    shard, config = model.shard, model.config
    return Buffers(
        hidden=zeros(config.hidden_size),
        normed=zeros(config.hidden_size),
        heads=zeros(shard.num_heads + 2 * shard.num_kv_heads, config.head_dim),
        attended=zeros(shard.num_heads, config.head_dim),
        gate_up=zeros(2 * shard.intermediate_size),
        gated=zeros(shard.intermediate_size),
        product=zeros(config.hidden_size),
    )
