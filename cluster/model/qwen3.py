"""Qwen3, dense (arXiv:2505.09388): Llama with a norm on every query and key head, and a head_dim of its own."""

from cluster.model.checkpoint import Weights
from cluster.model.config import ModelConfig, Shard
from cluster.model.decoder import DecoderLayer
from cluster.model.layers import HeadNorm, SelfAttention
from cluster.model.parallel import Communicator


def qwen3_layer(
    config: ModelConfig, shard: Shard, weights: Weights, prefix: str, communicator: Communicator
) -> DecoderLayer:
    head_norm = HeadNorm(config, shard, weights, f"{prefix}.self_attn")
    attention = SelfAttention(config, shard, weights, f"{prefix}.self_attn", communicator, head_norm)
    return DecoderLayer(config, shard, weights, prefix, communicator, attention)
