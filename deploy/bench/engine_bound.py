"""What a decode step cannot be faster than: its products with the weights, and the bytes that it has to move."""

from dataclasses import dataclass

from cluster.model.config import ModelConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Both measured in the same turn as the step; whichever is longer binds. `kv_s` of `bytes_s` are the KV's."""

    products_s: float
    bytes_s: float
    kv_s: float

    @property
    def seconds(self) -> float:
        return max(self.products_s, self.bytes_s)

    @property
    def in_turn_s(self) -> float:
        """Where KV is read when the products are over, as attention does, and not while they compute."""
        return max(self.products_s, self.bytes_s - self.kv_s) + self.kv_s

    @property
    def name(self) -> str:
        return "products" if self.products_s >= self.bytes_s else "bandwidth"


def weight_bytes(config: ModelConfig, itemsize: int) -> int:
    """All that every step reads: everything but the embedding, unless that is the output layer too."""
    embedding = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
    return (config.num_parameters - embedding) * itemsize


def kv_bytes_per_token(config: ModelConfig, itemsize: int) -> int:
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * itemsize


def decode_step_bytes(config: ModelConfig, batch_size: int, num_context_tokens: float, itemsize: int) -> float:
    """Weights once; of each sequence the KV of its context, the embedding of its token, and the new KV."""
    kv_bytes = decode_step_kv_bytes(config, batch_size, num_context_tokens, itemsize)
    return weight_bytes(config, itemsize) + kv_bytes + batch_size * config.hidden_size * itemsize


def decode_step_kv_bytes(config: ModelConfig, batch_size: int, num_context_tokens: float, itemsize: int) -> float:
    return batch_size * (num_context_tokens + 1) * kv_bytes_per_token(config, itemsize)


def mean_context(num_prompt_tokens: int, num_new_tokens: int) -> float:
    """Over the decode steps: the first attends to the prompt and one token, the last to all but one."""
    return num_prompt_tokens + num_new_tokens / 2


def prefill_flops(config: ModelConfig, num_tokens: int) -> float:
    """Of one prompt from its beginning: products with the weights, causal attention, logits of the last token."""
    output_layer = config.vocab_size * config.hidden_size
    layers = weight_bytes(config, 1) - output_layer
    attention = 4 * config.num_layers * config.num_heads * config.head_dim * (num_tokens * (num_tokens + 1) / 2)
    return 2.0 * layers * num_tokens + attention + 2.0 * output_layer
