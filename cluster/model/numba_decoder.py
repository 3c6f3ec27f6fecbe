"""One token of each of some sequences through a whole decoder on a CPU: one call of a kernel, and none of torch.

What is between the products costs as much again to call from Python as to compute, because the products have just
filled the caches with weights.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from cluster.model.batch import Batch
from cluster.model.decoder import Decoder, DecoderLayer
from cluster.model.kv_cache import KVCache
from cluster.model.linear import Linear
from cluster.model.numba_kernels import Buffers, DecoderWeights, DecodeStep, Floats, decode
from cluster.model.packed_products import NumbaProduct


class NumbaDecoder:
    """For a model that is whole in one process, in fp32, and whose products are `NumbaProduct`s."""

    def __init__(self, model: Decoder, kv_cache: KVCache) -> None:
        self._model, self._cache = model, kv_cache.tensor.numpy()
        self._weights = _weights(model)
        self._packed = [linear.product for linear in model.linears]  # kept, as addresses in `_weights` are of theirs
        self._buffers = _make_buffers(model, 1)
        self._load_kernel()

    def logits(self, batch: Batch, step: DecodeStep) -> Tensor | None:
        """fp32 [num_samples, vocab_size], until the next call; None where nothing is drawn."""
        num_tokens, num_samples = len(batch.token_ids), len(batch.last_rows)
        if num_tokens > len(self._buffers.hidden):
            self._buffers = _make_buffers(self._model, 1 << (num_tokens - 1).bit_length())
        buffers = Buffers(*(buffer[:num_tokens] for buffer in self._buffers))
        token_ids, positions, sampled = (it.numpy() for it in (batch.token_ids, batch.positions, batch.last_rows))
        decode(self._weights, token_ids, positions, sampled, buffers, self._cache, step)
        return torch.from_numpy(buffers.logits[:num_samples]) if num_samples else None

    def _load_kernel(self) -> None:
        """Now, not at the first request: a token of nobody's goes through the model, with a block for it alone."""
        _, _, num_layers, _, num_kv_heads, head_dim = self._cache.shape
        block = np.zeros((1, 2, num_layers, 1, num_kv_heads, head_dim), np.float32)
        first, token = np.zeros(1, np.int32), np.zeros(1, np.int64)
        step = DecodeStep(tables=first[None], contexts=first + 1, order=first, num_parts=1)
        decode(self._weights, token, token, token, self._buffers, block, step)


def _weights(model: Decoder) -> DecoderWeights:
    layers, head_dim = model.layers, model.config.head_dim
    own = [layer.attention for layer in layers]
    nothing = torch.empty(0, head_dim)
    return DecoderWeights(
        embedding=model.embedding.numpy(),
        inverse_frequencies=model.rope.inverse_frequencies.numpy(),
        attention_norms=_stack(layer.attention_norm.weight for layer in layers),
        mlp_norms=_stack(layer.mlp_norm.weight for layer in layers),
        head_norms=_stack(nothing if it.head_norm is None else it.head_norm.weight for it in own),
        qkv_biases=_stack_biases(it.qkv for it in own),
        output_biases=_stack_biases(it.output for it in own),
        products=np.array([_addresses(layer) for layer in layers]),
        norm=model.norm.weight.numpy(),
        lm_head=_address(model.lm_head),
        eps=np.float32(model.config.rms_norm_eps),
    )


def _addresses(layer: DecoderLayer) -> list[int]:
    return [_address(it) for it in (layer.attention.qkv, layer.attention.output, layer.mlp.gate_up, layer.mlp.down)]


def _address(linear: Linear) -> int:
    assert isinstance(linear.product, NumbaProduct)
    return linear.product.packed.data_ptr()


def _stack(tensors: Iterable[Tensor]) -> Floats:
    stacked: Floats = torch.stack(list(tensors)).numpy()
    return stacked


def _stack_biases(linears: Iterable[Linear]) -> Floats:
    return _stack(torch.empty(0) if linear.bias is None else linear.bias for linear in linears)


def _make_buffers(model: Decoder, num_rows: int) -> Buffers:
    def zeros(*shape: int) -> Floats:
        return np.zeros((num_rows, *shape), np.float32)

    shard, config = model.shard, model.config
    return Buffers(
        hidden=zeros(config.hidden_size),
        normed=zeros(config.hidden_size),
        rotations=zeros(config.head_dim // 2, 2),
        heads=zeros(shard.num_heads + 2 * shard.num_kv_heads, config.head_dim),
        attended=zeros(shard.num_heads, config.head_dim),
        gate_up=zeros(2 * shard.intermediate_size),
        gated=zeros(shard.intermediate_size),
        logits=zeros(shard.vocab_size),
    )
