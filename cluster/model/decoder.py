"""A decoder-only transformer from its parts: what every family here is, but for what its layers are made of."""

from collections.abc import Callable
from itertools import chain

import torch.nn.functional as F
from torch import Tensor

from cluster.model.attention import Attention
from cluster.model.checkpoint import Weights
from cluster.model.config import ModelConfig, Shard
from cluster.model.layers import GatedMLP, RMSNorm, SelfAttention
from cluster.model.linear import Linear
from cluster.model.parallel import Communicator
from cluster.model.rope import Rope


class DecoderLayer:
    """Pre-norm attention and MLP, each added to the residual stream."""

    def __init__(
        self,
        config: ModelConfig,
        shard: Shard,
        weights: Weights,
        prefix: str,
        communicator: Communicator,
        attention: SelfAttention,
    ) -> None:
        def norm(name: str) -> RMSNorm:
            return RMSNorm(weights.tensor(f"{prefix}.{name}.weight", config.hidden_size), config.rms_norm_eps)

        self.attention = attention
        self.mlp = GatedMLP(config, shard, weights, f"{prefix}.mlp", communicator)
        self.attention_norm = norm("input_layernorm")
        self.mlp_norm = norm("post_attention_layernorm")

    def __call__(self, hidden: Tensor, layer: int, rotations: Tensor, attention: Attention) -> Tensor:
        hidden = self.attention(self.attention_norm(hidden), layer, rotations, attention).add_(hidden)
        return self.mlp(self.mlp_norm(hidden)).add_(hidden)


MakeLayer = Callable[[ModelConfig, Shard, Weights, str, Communicator], DecoderLayer]


class Decoder:
    """Token ids to hidden states to logits, on one rank; `shard` is the part that it holds."""

    def __init__(
        self, config: ModelConfig, weights: Weights, make_layer: MakeLayer, communicator: Communicator
    ) -> None:
        self.config = config
        self.communicator = communicator
        self.shard = shard = config.shard(communicator.rank, communicator.world_size)
        self.dtype = weights.dtype
        self.embedding = weights.tensor("model.embed_tokens.weight", config.vocab_size, config.hidden_size)
        self.layers = [
            make_layer(config, shard, weights, f"model.layers.{layer}", communicator)
            for layer in range(config.num_layers)
        ]
        self.norm = RMSNorm(weights.tensor("model.norm.weight", config.hidden_size), config.rms_norm_eps)
        self.lm_head = self._make_lm_head(weights)
        self.rope = Rope(config, self.embedding.device)
        weights.check_all_used(ignore=("rotary_emb.inv_freq", "lm_head.weight"))

    @property
    def linears(self) -> list[Linear]:
        """Every product with weights, in the order of a step."""
        layers = (
            (layer.attention.qkv, layer.attention.output, layer.mlp.gate_up, layer.mlp.down) for layer in self.layers
        )
        return [*chain.from_iterable(layers), self.lm_head]

    def kv_shape(self, block_size: int) -> tuple[int, int, int, int]:
        """What a `KVCache` for this rank is made of: num_layers, block_size, num_kv_heads, head_dim."""
        return len(self.layers), block_size, self.shard.num_kv_heads, self.config.head_dim

    def forward(self, token_ids: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        """Hidden states [num_tokens, hidden_size] for ids and positions [num_tokens]; `attention` has been planned."""
        rotations = self.rope.rotations(positions)
        hidden = F.embedding(token_ids, self.embedding)
        for index, layer in enumerate(self.layers):
            hidden = layer(hidden, index, rotations, attention)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor | None:
        """[num_rows, hidden_size] to fp32 [num_rows, vocab_size]; None on other ranks than 0."""
        logits = self.lm_head(self.norm(hidden)).float()
        if self.communicator.world_size == 1:
            return logits
        gathered = self.communicator.gather_columns(logits)
        return None if gathered is None else gathered[:, : self.config.vocab_size].contiguous()

    def logits_of(self, hidden: Tensor, rows: Tensor) -> Tensor | None:
        """`logits` of some rows only, such as those where a token is drawn; None for none."""
        return self.logits(hidden.index_select(0, rows)) if len(rows) else None

    def _make_lm_head(self, weights: Weights) -> Linear:
        """This rank's part of the vocabulary; rows that only fill up the last part are 0, and cut off in `logits`."""
        config, size = self.config, self.shard.vocab_size
        start = min(size * self.shard.rank, config.vocab_size)
        num_rows = min(size, config.vocab_size - start)
        if config.tie_word_embeddings:
            rows = self.embedding[start : start + num_rows]
        else:
            shape = (config.vocab_size, config.hidden_size)
            rows = weights.part("lm_head.weight", *shape, dim=0, start=start, size=num_rows)
        padded = F.pad(rows, (0, 0, 0, size - num_rows)) if num_rows < size else rows
        return Linear(padded)
