"""Messages to prompt, by the checkpoint's Jinja template, rendered as `transformers` renders it.

Checkpoints are written against `transformers.utils.chat_template_utils`: its whitespace rules, filters, functions and
tags are part of the format.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from cluster.text.checkpoint_json import CheckpointTextError


class ChatTemplateError(ValueError):
    """The template refused the messages, or cannot cope with them."""


class ChatTemplate:
    def __init__(self, template: str, special_tokens: Mapping[str, str] | None = None) -> None:
        """`special_tokens` are variables of the template, as bos_token is. Raises ChatTemplateError."""
        self._special_tokens = dict(special_tokens or {})
        try:
            self._template = _environment().from_string(template)
        except jinja2.TemplateError as error:
            raise ChatTemplateError(f"the chat template is not valid: {error}") from None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt, special tokens spelled out; `variables` are the template's own. Raises ChatTemplateError."""
        ours = {"messages": messages, "add_generation_prompt": add_generation_prompt}
        try:
            return self._template.render(
                {"tools": None, "documents": None, **self._special_tokens, **(variables or {}), **ours}
            )
        except Exception as error:  # the template is a program of the checkpoint's: anything may come out of it
            raise ChatTemplateError(f"the chat template refused the messages: {error}") from error


def load_chat_template(
    path: Path, tokenizer_config: Mapping[str, Any], special_tokens: Mapping[str, str]
) -> ChatTemplate | None:
    """chat_template.jinja counts before tokenizer_config.json; of several named templates, the one named default.

    Raises CheckpointTextError naming the file.
    """
    file = path / "chat_template.jinja"
    try:
        if file.exists():
            return ChatTemplate(file.read_text(encoding="utf-8"), special_tokens)
        file = path / "tokenizer_config.json"
        template = tokenizer_config.get("chat_template")
        if isinstance(template, list):
            template = {entry["name"]: entry["template"] for entry in template}.get("default")
        return None if template is None else ChatTemplate(template, special_tokens)
    except (OSError, UnicodeDecodeError, ChatTemplateError) as error:
        raise CheckpointTextError(file, str(error)) from None


class _GenerationTag(Extension):
    """`{% generation %}` marks the assistant's words for training; here they are just rendered."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares it so)

    def parse(self, parser: Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML characters."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)
