"""A byte-level BPE made on the spot, and a checkpoint directory around it."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from cluster.text.tokenizer import Tokenizer

EOS = "<|endoftext|>"
SPECIAL_TOKENS = (EOS, "<|user|>", "<|assistant|>", "<|end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
CORPUS = (
    "the quick brown fox jumps over the lazy dog " * 3,
    "Grüße, 世界! naïve café 🙂🙂 ",
    "stop the stopping stops ",
)


@cache
def tokenizer_json() -> str:
    """256 bytes, four special tokens and a few merges."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer.to_str()


@cache
def vocab_size() -> int:
    return tokenizers.Tokenizer.from_str(tokenizer_json()).get_vocab_size()


def write_checkpoint(path: Path, *, tokenizer_config: dict[str, Any] | None = None, **files: dict[str, Any]) -> Path:
    """`files` are further JSON files by their stem, as `generation_config={...}`."""
    config = {"eos_token": EOS, "chat_template": CHAT_TEMPLATE} if tokenizer_config is None else tokenizer_config
    (path / "tokenizer.json").write_text(tokenizer_json())
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


def make_tokenizer(**options: Any) -> Tokenizer:
    return Tokenizer(tokenizers.Tokenizer.from_str(tokenizer_json()), **options)
