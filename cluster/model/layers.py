"""The layers that the families share. Tokens of all sequences lie flat: hidden is [num_tokens, hidden_size]."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cluster.model.attention import Attention
from cluster.model.checkpoint import Weights
from cluster.model.config import ModelConfig, Shard
from cluster.model.linear import Linear
from cluster.model.parallel import Communicator, row_parallel
from cluster.model.rope import pair_rows, rotate_


class RMSNorm:
    """Root mean square layer normalisation (arXiv:1910.07467) over the last dimension, computed in fp32."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        self.weight = weight
        self.eps = eps
        self._eps = weight.new_tensor(eps)

    def __call__(self, hidden: Tensor) -> Tensor:
        if hidden.dtype != torch.float32:
            return F.rms_norm(hidden, hidden.shape[-1:], self.weight, self.eps)
        # On a CPU, F.rms_norm is eight small operations; these five take half the time.
        norms = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
        scale = torch.addcmul(self._eps, norms, norms, value=1 / hidden.shape[-1]).rsqrt_()
        return torch.mul(hidden, self.weight).mul_(scale)


class HeadNorm:
    """Qwen3's norm of each query and key head, over head_dim, with one weight for queries and one for keys."""

    def __init__(self, config: ModelConfig, shard: Shard, weights: Weights, prefix: str) -> None:
        queries, keys = (
            pair_rows(weights.tensor(f"{prefix}.{name}.weight", config.head_dim), config.head_dim)
            for name in ("q_norm", "k_norm")
        )
        self.weight = torch.stack([queries] * shard.num_heads + [keys] * shard.num_kv_heads)
        self.eps = config.rms_norm_eps

    def __call__(self, heads: Tensor) -> None:
        """Normalises [num_tokens, num_heads + num_kv_heads, head_dim] in place."""
        torch.mul(F.rms_norm(heads, heads.shape[-1:], None, self.eps), self.weight, out=heads)


class SelfAttention:
    """Fused query, key and value projection; rotary embedding; attention; output projection."""

    def __init__(
        self,
        config: ModelConfig,
        shard: Shard,
        weights: Weights,
        prefix: str,
        communicator: Communicator,
        head_norm: HeadNorm | None = None,
    ) -> None:
        self.num_heads, self.num_kv_heads = shard.num_heads, shard.num_kv_heads
        self.head_norm = head_norm
        query_size, kv_size = shard.num_heads * config.head_dim, shard.num_kv_heads * config.head_dim
        sizes = {"q_proj": query_size, "k_proj": kv_size, "v_proj": kv_size}

        def fused(kind: str, *shape: int) -> Tensor:
            parts = {
                name: _rows(weights, f"{prefix}.{name}.{kind}", shard, size, *shape) for name, size in sizes.items()
            }
            paired = [pair_rows(parts[name], config.head_dim) for name in ("q_proj", "k_proj")]
            return torch.cat([*paired, parts["v_proj"]])

        bias = config.attention_bias
        self.qkv = Linear(fused("weight", config.hidden_size), fused("bias") if bias else None)
        self.output = row_parallel(
            _columns(weights, f"{prefix}.o_proj.weight", shard, config.hidden_size, query_size),
            weights.tensor(f"{prefix}.o_proj.bias", config.hidden_size) if bias else None,
            communicator,
        )

    def __call__(self, hidden: Tensor, layer: int, rotations: Tensor, attention: Attention) -> Tensor:
        heads = self.qkv(hidden).view(hidden.shape[0], self.num_heads + 2 * self.num_kv_heads, -1)
        rotated = heads[:, : self.num_heads + self.num_kv_heads]
        if self.head_norm is not None:
            self.head_norm(rotated)
        rotate_(rotated, rotations)
        return self.output(attention.attend(layer, heads))


class GatedMLP:
    """down(silu(gate(x)) * up(x)), with gate and up in one product."""

    def __init__(
        self, config: ModelConfig, shard: Shard, weights: Weights, prefix: str, communicator: Communicator
    ) -> None:
        inner, outer = shard.intermediate_size, config.hidden_size
        names = (f"{prefix}.{name}.weight" for name in ("gate_proj", "up_proj"))
        self.gate_up = Linear(torch.cat([_rows(weights, name, shard, inner, outer) for name in names]))
        down = _columns(weights, f"{prefix}.down_proj.weight", shard, outer, inner)
        self.down = row_parallel(down, None, communicator)

    def __call__(self, hidden: Tensor) -> Tensor:
        gate, up = self.gate_up(hidden).chunk(2, dim=-1)
        return self.down(F.silu(gate).mul_(up))


def _rows(weights: Weights, name: str, shard: Shard, size: int, *shape: int) -> Tensor:
    """This rank's `size` rows of a weight, or of a bias."""
    return weights.part(name, size * shard.world_size, *shape, dim=0, start=size * shard.rank, size=size)


def _columns(weights: Weights, name: str, shard: Shard, num_rows: int, size: int) -> Tensor:
    """This rank's `size` columns of a weight."""
    return weights.part(name, num_rows, size * shard.world_size, dim=1, start=size * shard.rank, size=size)
