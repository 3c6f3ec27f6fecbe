"""The shapes of models, as far as the time of their steps goes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.latency.known import find_known

ELEMENT_BYTES = 2
"""Weights, activations and KV in 16 bits."""


class ShapeError(ValueError):
    """A config.json that describes no dense model; the text names the field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A dense decoder. `is_gated`: its MLP has a gate beside what goes up (Llama); if not, OPT's."""

    name: str
    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    is_gated: bool = True
    tie_word_embeddings: bool = False

    @property
    def layer_parameters(self) -> int:
        attention = self.hidden_size * self.head_dim * (2 * self.num_heads + 2 * self.num_kv_heads)
        return attention + self.num_mlp_matrices * self.hidden_size * self.intermediate_size

    @property
    def embedding_parameters(self) -> int:
        return self.vocab_size * self.hidden_size

    @property
    def num_mlp_matrices(self) -> int:
        return 3 if self.is_gated else 2

    @property
    def kv_bytes_per_token_and_layer(self) -> int:
        return 2 * self.num_kv_heads * self.head_dim * ELEMENT_BYTES


def _llama(name: str, num_layers: int, hidden: int, inner: int, heads: int, kv_heads: int, vocab: int) -> ModelShape:
    return ModelShape(
        name=name,
        num_layers=num_layers,
        hidden_size=hidden,
        intermediate_size=inner,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=128,
        vocab_size=vocab,
    )


def _opt(name: str, num_layers: int, hidden: int, heads: int) -> ModelShape:
    return ModelShape(
        name=name,
        num_layers=num_layers,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=hidden // heads,
        vocab_size=50272,
        is_gated=False,
        tie_word_embeddings=True,
    )


_SHAPES = {
    shape.name: shape
    for shape in (
        _llama("llama-2-7b", 32, 4096, 11008, 32, 32, 32000),
        _llama("llama-2-13b", 40, 5120, 13824, 40, 40, 32000),
        _llama("llama-2-70b", 80, 8192, 28672, 64, 8, 32000),
        _llama("llama-3-8b", 32, 4096, 14336, 32, 8, 128256),
        _llama("llama-3-70b", 80, 8192, 28672, 64, 8, 128256),
        _llama("llama-3-405b", 126, 16384, 53248, 128, 8, 128256),
        _llama("mistral-7b", 32, 4096, 14336, 32, 8, 32000),
        _llama("qwen2.5-72b", 80, 8192, 29568, 64, 8, 152064),
        _llama("qwen3-8b", 36, 4096, 12288, 32, 8, 151936),
        _llama("qwen3-14b", 40, 5120, 17408, 40, 8, 151936),
        _llama("qwen3-32b", 64, 5120, 25600, 64, 8, 151936),
        _opt("opt-13b", 40, 5120, 40),
        _opt("opt-66b", 64, 9216, 72),
    )
}

SHAPE_NAMES = tuple(_SHAPES)


def shape_named(name: str) -> ModelShape:
    """ValueError lists those there are."""
    return find_known("model shape", name, _SHAPES)


def shape_of_config(config: Mapping[str, Any], name: str) -> ModelShape:
    """From the fields of a Hugging Face config.json, the file `name`. ShapeError for what is missing, or not dense."""
    for field in ("num_experts", "num_local_experts", "n_routed_experts"):
        if config.get(field):
            raise ShapeError(f"{name}: {field}: is {config[field]!r}; only dense models are known")
    is_opt = config.get("model_type") == "opt"
    hidden, heads = _count(config, "hidden_size", name), _count(config, "num_attention_heads", name)
    kv_heads = _count(config, "num_key_value_heads", name, heads)
    if heads % kv_heads:
        raise ShapeError(f"{name}: num_key_value_heads: {kv_heads} does not divide {heads} attention heads")
    return ModelShape(
        name=name,
        num_layers=_count(config, "num_hidden_layers", name),
        hidden_size=hidden,
        intermediate_size=_count(config, "ffn_dim" if is_opt else "intermediate_size", name),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=_count(config, "head_dim", name, hidden // heads),
        vocab_size=_count(config, "vocab_size", name),
        is_gated=not is_opt,
        tie_word_embeddings=bool(config.get("tie_word_embeddings", is_opt)),
    )


def _count(config: Mapping[str, Any], field: str, name: str, default: int | None = None) -> int:
    value = config.get(field)
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ShapeError(f"{name}: {field}: a positive whole number is needed, not {value!r}")
    return value
