"""The shape of a model, read from the config.json of a Hugging Face checkpoint. Imports no torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.model.errors import CheckpointError, UnsupportedParallelism

ARCHITECTURES = ("LlamaForCausalLM", "Qwen3ForCausalLM")


@dataclass(frozen=True, slots=True, kw_only=True)
class Llama3Scaling:
    """Stretches the low frequencies by `factor`, as the code of Llama 3.1 does."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The part of a model that one rank holds: counts of heads, MLP columns and logits.

    Each is the `rank`th of equal parts; of the vocabulary the last ranks may hold less.
    """

    rank: int
    world_size: int
    num_heads: int
    num_kv_heads: int
    intermediate_size: int
    vocab_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """`dtype` is the one the checkpoint says it is in: "float32", "bfloat16" or another that must be overridden."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_model_len: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: Llama3Scaling | None
    attention_bias: bool
    tie_word_embeddings: bool
    dtype: str
    eos_token_ids: tuple[int, ...]

    @staticmethod
    def from_checkpoint(path: str | Path) -> "ModelConfig":
        """Raises `CheckpointError` naming the field that is missing, wrong, or asks for what is not supported."""
        directory = Path(path)
        fields = Fields.read(directory / "config.json")
        architectures = fields.values.get("architectures") or ["none"]
        if architectures[0] not in ARCHITECTURES:
            raise fields.error(
                "architectures", f"{architectures[0]} is not supported (only {', '.join(ARCHITECTURES)})"
            )
        _refuse_unsupported(fields)
        hidden_size, num_heads = fields.count("hidden_size"), fields.count("num_attention_heads")
        num_kv_heads = fields.count("num_key_value_heads", num_heads)
        if num_heads % num_kv_heads:
            raise fields.error("num_key_value_heads", f"{num_kv_heads} does not divide {num_heads} attention heads")
        head_dim = fields.count("head_dim", hidden_size // num_heads)
        if head_dim % 2:
            raise fields.error("head_dim", f"{head_dim} is odd; rotary embeddings turn pairs")
        rope = _rope_fields(fields)
        return ModelConfig(
            architecture=architectures[0],
            vocab_size=fields.count("vocab_size"),
            hidden_size=hidden_size,
            intermediate_size=fields.count("intermediate_size"),
            num_layers=fields.count("num_hidden_layers"),
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            max_model_len=fields.count("max_position_embeddings"),
            rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
            rope_theta=rope.number("rope_theta", fields.number("rope_theta", 10_000.0)),
            rope_scaling=_llama3_scaling(rope),
            attention_bias=fields.flag("attention_bias"),
            tie_word_embeddings=fields.flag("tie_word_embeddings"),
            dtype=str(fields.values.get("dtype") or fields.values.get("torch_dtype") or "float32"),
            eos_token_ids=_eos_token_ids(fields, directory / "generation_config.json"),
        )

    @property
    def num_parameters(self) -> int:
        heads = (self.num_heads + 2 * self.num_kv_heads) * self.head_dim
        attention = self.hidden_size * (heads + self.num_heads * self.head_dim)
        layer = attention + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size
        layer += (heads + self.hidden_size) * self.attention_bias
        layer += 2 * self.head_dim * (self.architecture == "Qwen3ForCausalLM")
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return self.num_layers * layer + embeddings + self.hidden_size

    def shard(self, rank: int, world_size: int) -> Shard:
        """What `rank` of `world_size` holds; raises `UnsupportedParallelism` if the heads cannot be split so."""
        assert 0 <= rank < world_size, f"rank {rank} of {world_size}"
        for count, what in (
            (self.num_kv_heads, "KV heads"),
            (self.num_heads, "attention heads"),
            (self.intermediate_size, "MLP columns (intermediate_size)"),
        ):
            if count % world_size:
                raise UnsupportedParallelism(f"{world_size} ranks cannot share {count} {what}: it has to divide them")
        return Shard(
            rank=rank,
            world_size=world_size,
            num_heads=self.num_heads // world_size,
            num_kv_heads=self.num_kv_heads // world_size,
            intermediate_size=self.intermediate_size // world_size,
            vocab_size=-(-self.vocab_size // world_size),
        )


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of a JSON file, with errors that name the file and the field."""

    file: Path
    values: dict[str, Any]

    @staticmethod
    def read(file: Path) -> "Fields":
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise CheckpointError(file, f"cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise CheckpointError(file, f"is not JSON ({error})") from error
        if not isinstance(values, dict):
            raise CheckpointError(file, "is not a JSON object")
        return Fields(file, values)

    def error(self, name: str, problem: str) -> CheckpointError:
        return CheckpointError(self.file, problem, item=name)

    def count(self, name: str, default: int | None = None) -> int:
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.error(name, f"a positive whole number is needed, not {value!r}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
            raise self.error(name, f"a positive number is needed, not {value!r}")
        return float(value)

    def flag(self, name: str) -> bool:
        value = self.values.get(name) or False
        if not isinstance(value, bool):
            raise self.error(name, f"true or false is needed, not {value!r}")
        return value


def _refuse_unsupported(fields: Fields) -> None:
    """What would load and then compute something else than the model means."""
    if fields.values.get("hidden_act", "silu") != "silu":
        raise fields.error("hidden_act", f"{fields.values['hidden_act']} is not supported (only silu)")
    for name in ("mlp_bias", "use_sliding_window", "quantization_config"):
        if fields.values.get(name):
            raise fields.error(name, "is not supported")
    if set(fields.values.get("layer_types") or []) - {"full_attention"}:
        raise fields.error("layer_types", "only full_attention is supported")


def _rope_fields(fields: Fields) -> Fields:
    """Transformers 5 writes `rope_parameters`; before, there were `rope_scaling` and, beside it, `rope_theta`."""
    for name in ("rope_parameters", "rope_scaling"):
        values = fields.values.get(name)
        if values is not None and not isinstance(values, dict):
            raise fields.error(name, f"an object is needed, not {values!r}")
        if values:
            return Fields(fields.file, values)
    return Fields(fields.file, {})


def _llama3_scaling(rope: Fields) -> Llama3Scaling | None:
    kind = rope.values.get("rope_type") or rope.values.get("type") or "default"
    if rope.values.get("partial_rotary_factor", 1.0) != 1.0:
        raise rope.error("partial_rotary_factor", "only 1.0 is supported")
    if kind == "default":
        return None
    if kind != "llama3":
        raise rope.error("rope_type", f"scaling {kind!r} is not supported (only default and llama3)")
    return Llama3Scaling(
        factor=rope.number("factor"),
        low_freq_factor=rope.number("low_freq_factor"),
        high_freq_factor=rope.number("high_freq_factor"),
        original_max_position_embeddings=rope.count("original_max_position_embeddings"),
    )


def _eos_token_ids(fields: Fields, generation_config: Path) -> tuple[int, ...]:
    """All ids that end a text; generation_config.json often names more than config.json."""
    found: list[int] = []
    sources = [fields, *([Fields.read(generation_config)] if generation_config.exists() else [])]
    for source in sources:
        value = source.values.get("eos_token_id")
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(token_id, int) for token_id in ids):
            raise source.error("eos_token_id", f"a token id or a list of them is needed, not {value!r}")
        found += ids
    return tuple(dict.fromkeys(found))
