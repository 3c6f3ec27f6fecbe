"""A checkpoint's tokenizer: text to token ids and back, its special tokens and its chat template."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import tokenizers

from cluster.text.chat_template import ChatTemplate, load_chat_template
from cluster.text.checkpoint_json import CheckpointTextError, read_json_if_any

SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class Tokenizer:
    """Safe to use from several threads at once."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        eos_token_ids: Iterable[int] = (),
        chat_template: ChatTemplate | None = None,
    ) -> None:
        backend.no_truncation()  # a file may carry its training's settings
        backend.no_padding()
        self._backend = backend
        self.eos_token_ids = frozenset(eos_token_ids)
        self.chat_template = chat_template

    @classmethod
    def from_checkpoint(cls, path: Path) -> Self:
        """Reads tokenizer.json and the configurations beside it. Raises CheckpointTextError naming the file."""
        file = path / "tokenizer.json"
        if not file.is_file():
            raise CheckpointTextError(file, "does not exist")
        try:
            backend = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises nothing narrower
            raise CheckpointTextError(file, f"is not a tokenizer: {error}") from None
        config = read_json_if_any(path / "tokenizer_config.json")
        special_tokens = {name: _content(config[name]) for name in SPECIAL_TOKENS if config.get(name) is not None}
        return cls(
            backend,
            eos_token_ids=_eos_token_ids(path, backend.token_to_id(special_tokens.get("eos_token", ""))),
            chat_template=load_chat_template(path, config, special_tokens),
        )

    def encode(self, text: str, *, add_special_tokens: bool = True) -> tuple[int, ...]:
        """`add_special_tokens`: a leading bos and the like, where the checkpoint wants them."""
        return tuple(self._backend.encode(text, add_special_tokens=add_special_tokens).ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Without special tokens; bytes that are not UTF-8 become U+FFFD."""
        return self._backend.decode(token_ids)


def _content(token: str | dict[str, Any]) -> str:
    """Special tokens are written as a string, or as an object that also says how they are matched."""
    return token if isinstance(token, str) else str(token["content"])


def _eos_token_ids(path: Path, eos_token_id: int | None) -> set[int]:
    """What ends an output: of generation_config.json, or else config.json, and the tokenizer's own."""
    found = set() if eos_token_id is None else {eos_token_id}
    for name in ("generation_config.json", "config.json"):
        eos = read_json_if_any(path / name).get("eos_token_id")
        if eos is not None:
            return found | set(eos if isinstance(eos, list) else [eos])
    return found
