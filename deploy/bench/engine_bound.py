"""What a decode step is measured by: torch's products with its weights, its own ones, the bytes that it has to move."""

from dataclasses import dataclass

from cluster.model.config import ModelConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """All measured in the same turn as the step; whichever is longer binds, the products or the bytes.

    `torch_s`: the products by torch, which do not get faster when ours do; a step may well need less. `own_s`: as the
    step multiplies, alone, which it cannot.
    """

    torch_s: float
    own_s: float
    bytes_s: float

    @property
    def seconds(self) -> float:
        return max(self.torch_s, self.bytes_s)

    @property
    def of_own_s(self) -> float:
        return max(self.own_s, self.bytes_s)

    @property
    def name(self) -> str:
        return "products" if self.torch_s >= self.bytes_s else "bandwidth"


def weight_bytes(config: ModelConfig, itemsize: int) -> int:
    """All that every step reads: everything but the embedding, unless that is the output layer too."""
    embedding = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
    return (config.num_parameters - embedding) * itemsize


def kv_bytes_per_token(config: ModelConfig, itemsize: int) -> int:
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * itemsize


def decode_step_bytes(config: ModelConfig, batch_size: int, num_context_tokens: float, itemsize: int) -> float:
    """Weights once; of each sequence the KV of its context, the embedding of its token, and the new KV."""
    kv_bytes = (num_context_tokens + 1) * kv_bytes_per_token(config, itemsize)
    return weight_bytes(config, itemsize) + batch_size * (kv_bytes + config.hidden_size * itemsize)


def mean_context(num_prompt_tokens: int, num_new_tokens: int) -> float:
    """Over the decode steps: the first attends to the prompt and one token, the last to all but one."""
    return num_prompt_tokens + num_new_tokens / 2


def prefill_flops(config: ModelConfig, num_tokens: int) -> float:
    """Of one prompt from its beginning: products with the weights, causal attention, logits of the last token."""
    output_layer = config.vocab_size * config.hidden_size
    layers = weight_bytes(config, 1) - output_layer
    attention = 4 * config.num_layers * config.num_heads * config.head_dim * (num_tokens * (num_tokens + 1) / 2)
    return 2.0 * layers * num_tokens + attention + 2.0 * output_layer
