"""One token of each of some sequences through a whole decoder on a CPU: one call for each layer, and none of torch.

What is between the products costs as much again to call from Python as to compute, because the products have just
filled the caches with weights.
"""

import numpy as np
import torch
from torch import Tensor

from cluster.model.decoder import Decoder, DecoderLayer
from cluster.model.kv_cache import KVCache
from cluster.model.linear import Linear
from cluster.model.numba_kernels import Buffers, Bytes, DecodeStep, Floats, LayerWeights, decode_layer

NO_BIAS = np.empty(0, np.float32)


class NumbaDecoder:
    """For a model that is whole in one process, in fp32, with weights that MKL has packed."""

    def __init__(self, model: Decoder, kv_cache: KVCache) -> None:
        self._model, self._cache = model, kv_cache.tensor.numpy()
        self._eps = np.float32(model.config.rms_norm_eps)
        self._layers = [_weights(layer, model.config.head_dim) for layer in model.layers]
        self._buffers = _make_buffers(model, 1)
        self._load_kernel()

    def forward(self, token_ids: Tensor, positions: Tensor, step: DecodeStep) -> Tensor:
        """Hidden states [num_tokens, hidden_size], until the next call."""
        num_tokens = len(token_ids)
        if num_tokens > len(self._buffers.hidden):
            self._buffers = _make_buffers(self._model, num_tokens)
        buffers = Buffers(*(buffer[:num_tokens] for buffer in self._buffers))
        rotations = torch.view_as_real(self._model.rope.rotations(positions)).squeeze(1).numpy()
        hidden = torch.from_numpy(buffers.hidden)
        torch.index_select(self._model.embedding, 0, token_ids, out=hidden)
        for index, weights in enumerate(self._layers):
            decode_layer(weights, buffers, self._eps, rotations, self._cache, index, step)
        return hidden

    def _load_kernel(self) -> None:
        """Now, not at the first request: a token of nobody's goes through a layer, with a block for it alone."""
        num_kv_heads, head_dim = self._cache.shape[-2:]
        rotations = np.zeros((1, head_dim // 2, 2), np.float32)
        block, first = np.zeros((1, 2, 1, 1, num_kv_heads, head_dim), np.float32), np.zeros(1, np.int32)
        step = DecodeStep(tables=first[None], contexts=first + 1, order=first, num_parts=1)
        decode_layer(self._layers[0], self._buffers, self._eps, rotations, block, 0, step)


def _weights(layer: DecoderLayer, head_dim: int) -> LayerWeights:
    attention, mlp = layer.attention, layer.mlp
    norms = np.empty((0, head_dim), np.float32) if attention.head_norm is None else attention.head_norm.weight.numpy()
    return LayerWeights(
        attention_norm=layer.attention_norm.weight.numpy(),
        qkv=_packed(attention.qkv),
        qkv_bias=_bias(attention.qkv),
        head_norms=norms,
        output=_packed(attention.output),
        output_bias=_bias(attention.output),
        mlp_norm=layer.mlp_norm.weight.numpy(),
        gate_up=_packed(mlp.gate_up),
        down=_packed(mlp.down),
    )


def _packed(linear: Linear) -> Bytes:
    assert linear.mkl_packed is not None, "products are MKL's"
    packed: Bytes = linear.mkl_packed.numpy()
    return packed


def _bias(linear: Linear) -> Floats:
    return NO_BIAS if linear.bias is None else linear.bias.numpy()


def _make_buffers(model: Decoder, num_rows: int) -> Buffers:
    def zeros(*shape: int) -> Floats:
        return np.zeros((num_rows, *shape), np.float32)

    shard, config = model.shard, model.config
    return Buffers(
        hidden=zeros(config.hidden_size),
        normed=zeros(config.hidden_size),
        heads=zeros(shard.num_heads + 2 * shard.num_kv_heads, config.head_dim),
        attended=zeros(shard.num_heads, config.head_dim),
        gate_up=zeros(2 * shard.intermediate_size),
        gated=zeros(shard.intermediate_size),
    )
