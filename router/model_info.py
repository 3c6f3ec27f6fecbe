"""What a front must know of the model to judge a request; read from the checkpoint without loading it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cluster.text.checkpoint_json import read_json


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    model: str
    architecture: str
    max_model_len: int
    vocab_size: int
    eos_token_ids: frozenset[int]

    @classmethod
    def from_checkpoint(
        cls, path: Path, *, model: str, eos_token_ids: frozenset[int], max_model_len: int | None = None
    ) -> Self:
        """`model` is the name it is served under; the eos ids are the tokenizer's. Raises CheckpointTextError."""
        config = read_json(path / "config.json", required=("architectures", "vocab_size", "max_position_embeddings"))
        context = config["max_position_embeddings"]
        return cls(
            model=model,
            architecture=config["architectures"][0],
            max_model_len=context if max_model_len is None else min(context, max_model_len),
            vocab_size=config["vocab_size"],
            eos_token_ids=eos_token_ids,
        )
