"""What a checkpoint directory says of itself without being loaded: enough to tell whether it fits."""

import json
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Self

ELEMENT_BYTES = {"float32": 4, "bfloat16": 2}
_COUNTS = ("num_attention_heads", "hidden_size", "intermediate_size", "num_hidden_layers", "max_position_embeddings")


class CheckpointError(ValueError):
    """Names the file and what is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFacts:
    num_parameters: int
    max_model_len: int
    kv_elements_per_token: int
    num_heads: int
    num_kv_heads: int
    intermediate_size: int

    @classmethod
    def read(cls, path: Path) -> Self:
        """From config.json and the headers of the safetensors files; CheckpointError for what cannot be one."""
        if not path.is_dir():
            raise CheckpointError(
                f"{path} is no directory; it should hold config.json, *.safetensors and tokenizer.json"
            )
        config = _read_config(path / "config.json")
        weights = sorted(path.glob("*.safetensors"))
        if not weights:
            raise CheckpointError(f"{path} holds no *.safetensors file")
        num_heads = config["num_attention_heads"]
        head_dim = config.get("head_dim") or config["hidden_size"] // num_heads
        num_kv_heads = config.get("num_key_value_heads") or num_heads
        return cls(
            num_parameters=sum(_count_elements(file) for file in weights),
            max_model_len=config["max_position_embeddings"],
            kv_elements_per_token=2 * config["num_hidden_layers"] * num_kv_heads * head_dim,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            intermediate_size=config["intermediate_size"],
        )


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{file} does not exist") from None
    except ValueError as error:
        raise CheckpointError(f"{file} is not valid JSON: {error}") from None
    for key in _COUNTS:
        if not (isinstance(config, dict) and isinstance(config.get(key), int) and config[key] > 0):
            raise CheckpointError(f"{file}: {key} should be a positive whole number")
    return dict(config)


def _count_elements(file: Path) -> int:
    """Of all tensors in a safetensors file; its size must be what its header promises."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        header_bytes = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if header_bytes > size - 8:
            raise CheckpointError(f"{file} is cut off: {size} bytes do not even hold its header")
        try:
            header = json.loads(stream.read(header_bytes))
            tensors = [entry for name, entry in header.items() if name != "__metadata__"]
            end = max((entry["data_offsets"][1] for entry in tensors), default=0)
            num_elements = sum(prod(entry["shape"]) for entry in tensors)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{file} has no safetensors header: {error}") from None
    if 8 + header_bytes + end > size:
        raise CheckpointError(f"{file} is cut off: {size} bytes of {8 + header_bytes + end}")
    return int(num_elements)
