"""The bodies of OpenAI's completions and chat completions, and what they ask of the generator.

Nothing is dropped in silence: a parameter that would change the output and is not supported is refused, unless it has
the value that changes nothing. A null is the same as leaving out. Beyond OpenAI's: `top_k`, `stop_token_ids`,
`ignore_eos`, `priority` (higher runs first), `request_id`, `timeout_s`, `resumable` (docs/resume.md) and
`chat_template_kwargs`.
"""

import json
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from router.errors import InvalidRequest
from router.validation import GenerateRequest, RequestedSampling

MAX_CHOICES = 16  # n
MAX_PROMPTS = 128

IGNORED = frozenset(
    ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention")
)
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1,),
    "logit_bias": ({},),
    "min_p": (0,),
    "min_tokens": (0,),
    "modalities": (["text"],),
    "parallel_tool_calls": (False, True),
    "presence_penalty": (0,),
    "reasoning_effort": ("none",),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "skip_special_tokens": (True,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "use_beam_search": (False,),
}

Prompt = str | tuple[int, ...]


def _prompts(value: Any) -> list[Prompt]:
    """A text, texts, token ids, or lists of token ids, as a list of prompts."""
    prompts = [value] if isinstance(value, str) or _is_ids(value) else value
    if not isinstance(prompts, list) or not prompts:
        raise ValueError("should be a string, a list of strings, a list of token ids, or a list of such lists")
    if len(prompts) > MAX_PROMPTS:
        raise ValueError(f"at most {MAX_PROMPTS} prompts are allowed")
    if all(isinstance(prompt, str) for prompt in prompts):
        return prompts
    if all(_is_ids(prompt) for prompt in prompts):
        return [tuple(prompt) for prompt in prompts]
    raise ValueError("should hold only strings, or only token ids, or only lists of token ids, and none empty")


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(token_id) is int for token_id in value)


def _strings(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    include_usage: bool = False
    include_obfuscation: bool = False  # has no effect: it pads chunks


class Body(BaseModel):
    """What both kinds of completion share."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] = 1
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: Annotated[list[str], BeforeValidator(_strings)] = []
    stop_token_ids: list[int] = []
    ignore_eos: bool = False
    priority: int = 0
    request_id: str = ""
    timeout_s: float | None = None
    resumable: bool = False

    def model_post_init(self, context: Any) -> None:
        for name, value in (self.model_extra or {}).items():
            if name in NEUTRAL and value not in NEUTRAL[name]:
                raise InvalidRequest(name, f"is not supported; leave it out or at {NEUTRAL[name][-1]!r}")
            if name not in NEUTRAL and name not in IGNORED:
                raise InvalidRequest(name, "is not a parameter of this endpoint")

    def request(self, prompt: Prompt, *, logprobs: int | None, max_tokens: int | None) -> GenerateRequest:
        sampling = RequestedSampling(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=0 if self.top_k == -1 else self.top_k,  # vLLM's way to say off
            seed=self.seed,
            max_tokens=max_tokens,
            stop=tuple(self.stop),
            stop_token_ids=tuple(self.stop_token_ids),
            ignore_eos=self.ignore_eos,
            logprobs=logprobs,
        )
        return GenerateRequest(
            prompt=prompt,
            request_id=self.request_id,
            sampling=sampling,
            priority=self.priority,
            timeout_s=self.timeout_s,
            resumable=self.resumable,
        )


class CompletionBody(Body):
    prompt: Annotated[list[Any], BeforeValidator(_prompts)]
    logprobs: int | None = None


def _content(value: Any) -> Any:
    """A list of text parts is one text."""
    if not isinstance(value, list):
        return value
    parts = [part for part in value if isinstance(part, dict) and part.get("type") == "text"]
    if len(parts) < len(value) or not all(isinstance(part.get("text"), str) for part in parts):
        raise ValueError("should be a string, or a list of parts of type text")
    return "".join(part["text"] for part in parts)


class Message(BaseModel):
    """What else a message holds is the template's business."""

    model_config = ConfigDict(strict=True, extra="allow")

    role: Annotated[str, Field(min_length=1)]
    content: Annotated[str, BeforeValidator(_content)]


class ChatBody(Body):
    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: int | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    add_generation_prompt: bool = True
    chat_template_kwargs: dict[str, Any] = {}

    @property
    def limit(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def num_logprobs(self) -> int | None:
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidRequest("top_logprobs", "needs logprobs to be true")
        return (self.top_logprobs or 0) if self.logprobs else None


BodyT = TypeVar("BodyT", bound=Body)


def parse_body(kind: type[BodyT], data: bytes) -> BodyT:
    """Raises InvalidRequest naming the field."""
    try:
        content = json.loads(data.decode())
    except UnicodeDecodeError as error:
        raise InvalidRequest("body", f"is not valid UTF-8 at byte {error.start}") from None
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("body", f"is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise InvalidRequest("body", "should be a JSON object")
    try:
        return kind.model_validate({name: value for name, value in content.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(str(step) for step in first["loc"]) or "body"
        raise InvalidRequest(field, first["msg"].removeprefix("Value error, ")) from None
