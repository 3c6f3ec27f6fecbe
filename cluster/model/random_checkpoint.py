"""Makes checkpoints with random weights, in Hugging Face's layout: for tests, benchmarks and `baton model init`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from cluster.model.checkpoint import INDEX_FILE, SINGLE_FILE
from cluster.model.config import ARCHITECTURES
from cluster.model.load import DTYPES

SPECIAL_TOKENS = ("<|endoftext|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomShape:
    """The shape of a random model; names as in config.json. `head_dim` None is hidden_size / num_attention_heads."""

    architecture: str = "LlamaForCausalLM"
    hidden_size: int = 64
    intermediate_size: int = 176
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int | None = None
    vocab_size: int = 320
    max_position_embeddings: int = 2048
    rope_theta: float = 10_000.0
    rope_scaling: dict[str, Any] | None = None
    attention_bias: bool = False
    tie_word_embeddings: bool = False

    @property
    def head_size(self) -> int:
        return self.head_dim or self.hidden_size // self.num_attention_heads


def make_random_checkpoint(
    path: str | Path, *, seed: int = 0, dtype: str = "float32", num_shards: int = 1, **shape: Any
) -> Path:
    """Writes config.json, safetensors (with an index if `num_shards` > 1), tokenizer.json and tokenizer_config.json.

    `shape` are the fields of `RandomShape`. Raises `ValueError` for a shape that cannot be.
    """
    chosen = RandomShape(**shape)
    _check(chosen, dtype)
    directory = Path(path)
    directory.mkdir(parents=True, exist_ok=True)
    _write_json(directory / "config.json", _config(chosen, dtype))
    _write_weights(directory, _weights(chosen, torch.Generator().manual_seed(seed), DTYPES[dtype]), num_shards)
    _tokenizer(chosen.vocab_size).save(str(directory / "tokenizer.json"))
    _write_json(directory / "tokenizer_config.json", _tokenizer_config(chosen))
    return directory


def _check(shape: RandomShape, dtype: str) -> None:
    if shape.architecture not in ARCHITECTURES:
        raise ValueError(f"architecture {shape.architecture!r}: must be one of {', '.join(ARCHITECTURES)}")
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r}: must be one of {', '.join(DTYPES)}")
    if shape.vocab_size < SMALLEST_VOCABULARY:
        raise ValueError(f"vocab_size {shape.vocab_size}: bytes and special tokens need {SMALLEST_VOCABULARY}")
    if shape.num_attention_heads % shape.num_key_value_heads:
        raise ValueError(f"num_key_value_heads {shape.num_key_value_heads}: must divide {shape.num_attention_heads}")


def _config(shape: RandomShape, dtype: str) -> dict[str, Any]:
    return {
        "architectures": [shape.architecture],
        "model_type": {"LlamaForCausalLM": "llama", "Qwen3ForCausalLM": "qwen3"}[shape.architecture],
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_key_value_heads,
        "head_dim": shape.head_size,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": shape.max_position_embeddings,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta, **(shape.rope_scaling or {})},
        "attention_bias": shape.attention_bias,
        "tie_word_embeddings": shape.tie_word_embeddings,
        "bos_token_id": None,
        "eos_token_id": [256, 257],
        "dtype": dtype,
    }


def _weights(shape: RandomShape, generator: torch.Generator, dtype: torch.dtype) -> dict[str, Tensor]:
    """Projections keep the scale of what goes through them, so that logits differ clearly from token to token."""

    def matrix(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=generator).mul_(columns**-0.5).to(dtype)

    def vector(size: int, mean: float) -> Tensor:
        return (mean + 0.1 * torch.randn(size, generator=generator)).to(dtype)

    hidden, inner, head = shape.hidden_size, shape.intermediate_size, shape.head_size
    queries, keys = shape.num_attention_heads * head, shape.num_key_value_heads * head
    outputs = {"q_proj": queries, "k_proj": keys, "v_proj": keys, "o_proj": hidden}
    tensors = {"model.embed_tokens.weight": matrix(shape.vocab_size, hidden) * hidden**0.5}
    for layer in range(shape.num_hidden_layers):
        prefix = f"model.layers.{layer}"
        for name, rows in outputs.items():
            tensors[f"{prefix}.self_attn.{name}.weight"] = matrix(rows, queries if name == "o_proj" else hidden)
            if shape.attention_bias:
                tensors[f"{prefix}.self_attn.{name}.bias"] = vector(rows, 0.0)
        if shape.architecture == "Qwen3ForCausalLM":
            tensors |= {f"{prefix}.self_attn.{name}.weight": vector(head, 1.0) for name in ("q_norm", "k_norm")}
        tensors |= {f"{prefix}.mlp.{name}.weight": matrix(inner, hidden) for name in ("gate_proj", "up_proj")}
        tensors[f"{prefix}.mlp.down_proj.weight"] = matrix(hidden, inner)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}.{name}.weight"] = vector(hidden, 1.0)
    tensors["model.norm.weight"] = vector(hidden, 1.0)
    if not shape.tie_word_embeddings:
        tensors["lm_head.weight"] = matrix(shape.vocab_size, hidden)
    return tensors


def _write_weights(directory: Path, tensors: dict[str, Tensor], num_shards: int) -> None:
    if num_shards == 1:
        save_file(tensors, directory / SINGLE_FILE, metadata={"format": "pt"})
        return
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for shard in range(num_shards):
        file = f"model-{shard + 1:05}-of-{num_shards:05}.safetensors"
        part = names[shard::num_shards]
        save_file({name: tensors[name] for name in part}, directory / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total_size = sum(tensor.nbytes for tensor in tensors.values())
    _write_json(directory / INDEX_FILE, {"metadata": {"total_size": total_size}, "weight_map": weight_map})


def _tokenizer(vocab_size: int) -> Tokenizer:
    """Byte-level BPE without merges: a token a byte; ids from 261 on stand for themselves, and no text gives them."""
    entries = sorted(pre_tokenizers.ByteLevel.alphabet())
    unused = [f"<|unused_{token_id}|>" for token_id in range(SMALLEST_VOCABULARY, vocab_size)]
    vocabulary = {token: token_id for token_id, token in enumerate([*entries, *SPECIAL_TOKENS, *unused])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer


def _tokenizer_config(shape: RandomShape) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|end|>",
        "model_max_length": shape.max_position_embeddings,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
