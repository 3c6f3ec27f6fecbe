"""The small JSON files of a checkpoint directory."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class CheckpointTextError(ValueError):
    """Names the file and what is wrong with it."""

    def __init__(self, file: Path, problem: str) -> None:
        super().__init__(f"{file}: {problem}")
        self.file = file


def read_json(file: Path, *, required: Iterable[str] = ()) -> dict[str, Any]:
    """The object in `file`. Raises CheckpointTextError when it is missing, broken, or lacks a required key."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointTextError(file, error.strerror or "cannot be read") from None
    except ValueError as error:  # of JSON, and of UTF-8
        raise CheckpointTextError(file, f"is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointTextError(file, "should hold a JSON object")
    for key in required:
        if content.get(key) is None:
            raise CheckpointTextError(file, f"lacks {key!r}")
    return content


def read_json_if_any(file: Path) -> dict[str, Any]:
    return read_json(file) if file.exists() else {}
