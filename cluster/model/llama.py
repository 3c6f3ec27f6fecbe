"""Llama (arXiv:2302.13971, 2407.21783)."""

from cluster.model.checkpoint import Weights
from cluster.model.config import ModelConfig, Shard
from cluster.model.decoder import DecoderLayer
from cluster.model.layers import SelfAttention
from cluster.model.parallel import Communicator


def llama_layer(
    config: ModelConfig, shard: Shard, weights: Weights, prefix: str, communicator: Communicator
) -> DecoderLayer:
    attention = SelfAttention(config, shard, weights, f"{prefix}.self_attn", communicator)
    return DecoderLayer(config, shard, weights, prefix, communicator, attention)
