"""What a client asks for, and whether it may: every refusal names the field."""

import math
from dataclasses import dataclass, field

from cluster.engine.sampling_params import SamplingParams
from router.errors import DeadlineExceeded, InvalidRequest
from router.model_info import ModelInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedSampling:
    """As the client said it: None is "not said"."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """The prompt is a text, or token ids. `request_id` is drawn when empty; `timeout_s` None is no deadline.

    `resumable`: it outlives a lost client for a while.
    """

    prompt: str | tuple[int, ...]
    request_id: str = ""
    sampling: RequestedSampling = field(default_factory=RequestedSampling)
    priority: int = 0
    timeout_s: float | None = None
    resumable: bool = False
    add_special_tokens: bool = True  # to a text; a rendered chat brings its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    max_logprobs: int = 20
    max_stop_strings: int = 16
    max_stop_string_chars: int = 256
    max_stop_token_ids: int = 256
    max_request_id_chars: int = 128
    max_temperature: float = 100.0
    default_timeout_s: float | None = None


MAX_INT32 = 2**31 - 1


def check_request(request: GenerateRequest, limits: Limits) -> None:
    """All that can be judged before the prompt is tokenised. Raises InvalidRequest, DeadlineExceeded."""
    _check_prompt(request.prompt)
    if len(request.request_id) > limits.max_request_id_chars:
        raise InvalidRequest("request_id", f"must have at most {limits.max_request_id_chars} characters")
    _check_utf8("request_id", request.request_id)
    _check_range("priority", request.priority, -MAX_INT32, MAX_INT32)
    if request.timeout_s is not None:
        if math.isnan(request.timeout_s):
            raise InvalidRequest("timeout_s", "must be a number of seconds, not NaN")
        if request.timeout_s <= 0:
            raise DeadlineExceeded("timeout_s: the request's deadline had passed when it arrived")


def check_stop_strings(stop: tuple[str, ...], limits: Limits) -> None:
    """Raises InvalidRequest."""
    if len(stop) > limits.max_stop_strings:
        raise InvalidRequest("stop", f"has {len(stop)} strings; at most {limits.max_stop_strings} are allowed")
    for text in stop:
        if not 1 <= len(text) <= limits.max_stop_string_chars:
            raise InvalidRequest("stop", f"each string must have 1 to {limits.max_stop_string_chars} characters")
        _check_utf8("stop", text)


def check_prompt_tokens(prompt_token_ids: tuple[int, ...], model: ModelInfo) -> None:
    """Raises InvalidRequest: empty, out of the vocabulary, or no room for one more token."""
    if not prompt_token_ids:
        raise InvalidRequest("prompt", "must not be empty")
    _check_vocabulary("prompt", prompt_token_ids, model)
    if len(prompt_token_ids) >= model.max_model_len:
        raise InvalidRequest(
            "prompt",
            f"has {len(prompt_token_ids)} tokens and the model's context of {model.max_model_len} tokens must hold it "
            "and at least one more",
        )


def resolve_sampling(
    asked: RequestedSampling, *, num_prompt_tokens: int, seed: int, model: ModelInfo, limits: Limits
) -> SamplingParams:
    """All defaults filled in; `seed` is the one to use when none was asked for. Raises InvalidRequest."""
    room = model.max_model_len - num_prompt_tokens
    params = SamplingParams(
        temperature=1.0 if asked.temperature is None else asked.temperature,
        top_p=1.0 if asked.top_p is None else asked.top_p,
        top_k=asked.top_k or 0,
        seed=seed if asked.seed is None else asked.seed,
        max_tokens=room if asked.max_tokens is None else asked.max_tokens,
        stop_token_ids=frozenset(asked.stop_token_ids) | (frozenset() if asked.ignore_eos else model.eos_token_ids),
        logprobs=asked.logprobs,
    )
    _check_numbers(params, limits)
    if params.max_tokens > room:
        raise InvalidRequest(
            "max_tokens",
            f"is {params.max_tokens}, but after the prompt's {num_prompt_tokens} tokens "
            f"the model's context of {model.max_model_len} tokens leaves {room}",
        )
    _check_stops(asked, model, limits)
    return params


def _check_numbers(params: SamplingParams, limits: Limits) -> None:
    _check_range("temperature", params.temperature, 0.0, limits.max_temperature)
    if not 0.0 < params.top_p <= 1.0:
        raise InvalidRequest("top_p", f"must be in (0, 1], not {params.top_p}")
    _check_range("top_k", params.top_k, 0, MAX_INT32)
    _check_range("seed", params.seed, 0, 2**64 - 1)
    _check_range("max_tokens", params.max_tokens, 1, MAX_INT32)
    if params.logprobs is not None:
        _check_range("logprobs", params.logprobs, 0, limits.max_logprobs)


def _check_stops(asked: RequestedSampling, model: ModelInfo, limits: Limits) -> None:
    check_stop_strings(asked.stop, limits)
    if len(asked.stop_token_ids) > limits.max_stop_token_ids:
        raise InvalidRequest("stop_token_ids", f"at most {limits.max_stop_token_ids} are allowed")
    _check_vocabulary("stop_token_ids", asked.stop_token_ids, model)


def _check_prompt(prompt: str | tuple[int, ...]) -> None:
    if not prompt:
        raise InvalidRequest("prompt", "must not be empty")
    if isinstance(prompt, str):
        _check_utf8("prompt", prompt)


def _check_utf8(name: str, text: str) -> None:
    """A lone surrogate, which JSON can spell, has no UTF-8 form."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(name, f"is not valid UTF-8: character {error.start} is a lone surrogate") from None


def _check_vocabulary(name: str, token_ids: tuple[int, ...], model: ModelInfo) -> None:
    if token_ids and not (min(token_ids) >= 0 and max(token_ids) < model.vocab_size):
        wrong = next(token_id for token_id in token_ids if not 0 <= token_id < model.vocab_size)
        raise InvalidRequest(name, f"token id {wrong} is not in the vocabulary of {model.vocab_size} tokens")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # false for NaN too
        raise InvalidRequest(name, f"must be between {low} and {high}, not {value}")
