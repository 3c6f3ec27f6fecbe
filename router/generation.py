"""From a client's request to text: the one path behind both fronts, and the seam to what runs the tokens.

check -> tokenise -> resolve -> Backend.submit -> token deltas -> detokenise -> match stop strings -> text deltas
"""

import asyncio
import secrets
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, replace
from typing import Protocol

from cluster.engine.sampling_params import SamplingParams
from cluster.engine.sequence import FinishReason, TokenLogprobs
from cluster.pb import baton_pb2
from cluster.text.detokenizer import Detokenizer
from cluster.text.stop_strings import StopStrings
from cluster.text.tokenizer import Tokenizer
from router.errors import DeadlineExceeded, GenerationFailed
from router.metrics import Metrics
from router.model_info import ModelInfo
from router.validation import GenerateRequest, Limits, check_prompt_tokens, check_request, resolve_sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmittedRequest:
    """`deadline_s` is on the clock of `time.monotonic`."""

    request_id: str
    prompt_token_ids: tuple[int, ...]
    sampling_params: SamplingParams
    deadline_s: float | None
    priority: int
    resumable: bool = False  # it outlives a lost client for a while


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenDelta:
    """Output tokens [start_index, start_index + len(token_ids)); the finish reason rides with the last."""

    start_index: int
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] = ()
    finish_reason: FinishReason | None = None
    num_cached_tokens: int = 0


class TokenStream(Protocol):
    """Raises InstanceLost, DeadlineExceeded or RequestAborted; the last delta has a finish reason."""

    def __aiter__(self) -> AsyncIterator[TokenDelta]: ...

    def finish(self) -> None:
        """The client has all it wants: the instances let go of the request, unless it is over."""

    async def aclose(self) -> None:
        """The client is gone. This ends the request, a resumable one after a while, unless others read it."""


@dataclass(frozen=True, slots=True)
class AttachedRequest:
    """`stream` begins with the first token."""

    request: AdmittedRequest
    stream: TokenStream


class Backend(Protocol):
    """What runs admitted requests: the router's core, or a script in tests."""

    def submit(self, request: AdmittedRequest) -> TokenStream:
        """Raises QueueFull, DuplicateRequest or NoInstance at once."""

    async def attach(self, request_id: str) -> AttachedRequest:
        """One more reader of a request that runs or has just ended. Raises UnknownRequest and NoInstance."""

    def abort(self, request_id: str) -> bool:
        """False: no such request runs."""

    def status(self) -> baton_pb2.ClusterStatus: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    num_prompt_tokens: int
    num_output_tokens: int
    num_cached_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationDelta:
    """`index` is that of the first token. `text` may trail: half characters and half stop strings are held back."""

    request_id: str
    index: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None  # with the last delta


class TextGenerator:
    """Both fronts stand on this; it holds nothing between requests."""

    def __init__(self, backend: Backend, text: Tokenizer, model_info: ModelInfo, limits: Limits | None = None) -> None:
        self.backend = backend
        self.text = text
        self.model_info = model_info
        self.limits = limits or Limits()
        self.metrics = Metrics(model_info.model, backend.status)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerationDelta]:
        """Deltas until one has a finish reason; closing the generator aborts the request. Raises BatonErrors.

        Nothing is admitted, and no refusal raised, before the first delta is asked for.
        """
        with self.metrics.request() as observed:
            admitted = await self._admit(request)
            output = _Output(self.text, admitted, request.sampling.stop)
            stream = self.backend.submit(admitted)
            observed.admitted(len(admitted.prompt_token_ids))
            try:
                async for token_delta in stream:
                    delta = output.take(token_delta)
                    observed.tokens(len(delta.token_ids))
                    if delta.finish_reason is not None:
                        stream.finish()  # a stop string ends it before the instances know
                        observed.finished(delta.finish_reason)
                    yield delta
                    if delta.finish_reason is not None:
                        return
                raise GenerationFailed("the tokens ended without a finish reason")
            finally:
                await stream.aclose()

    async def tokenize(self, request: GenerateRequest) -> tuple[int, ...]:
        """The prompt's token ids. Raises InvalidRequest, DeadlineExceeded."""
        check_request(request, self.limits)
        token_ids = request.prompt
        if isinstance(token_ids, str):
            token_ids = await self._encode(token_ids, request.add_special_tokens)
        check_prompt_tokens(token_ids, self.model_info)
        return token_ids

    async def _encode(self, text: str, add_special_tokens: bool) -> tuple[int, ...]:
        if len(text) <= LONG_TEXT_CHARS:
            return self.text.encode(text, add_special_tokens=add_special_tokens)
        # Beside the loop (tokenizers lets go of the GIL), so that a long prompt holds up nobody's tokens.
        return await asyncio.to_thread(self.text.encode, text, add_special_tokens=add_special_tokens)

    async def _admit(self, request: GenerateRequest) -> AdmittedRequest:
        arrival_s = time.monotonic()
        prompt_token_ids = await self.tokenize(request)
        timeout_s = self.limits.default_timeout_s if request.timeout_s is None else request.timeout_s
        return AdmittedRequest(
            request_id=request.request_id or uuid.uuid4().hex,
            prompt_token_ids=prompt_token_ids,
            sampling_params=resolve_sampling(
                request.sampling,
                num_prompt_tokens=len(prompt_token_ids),
                seed=secrets.randbits(63),
                model=self.model_info,
                limits=self.limits,
            ),
            deadline_s=None if timeout_s is None else arrival_s + timeout_s,
            priority=request.priority,
            resumable=request.resumable,
        )


LONG_TEXT_CHARS = 4096


class _Output:
    """One request's text so far."""

    def __init__(self, text: Tokenizer, request: AdmittedRequest, stop: tuple[str, ...]) -> None:
        self._request = request
        self._detokenizer = Detokenizer(text, request.prompt_token_ids)
        self._stop_strings = StopStrings(stop)
        self._num_tokens = 0

    def take(self, delta: TokenDelta) -> GenerationDelta:
        """What the client may see of it. Tokens after the one that completes a stop string are dropped."""
        if delta.finish_reason is FinishReason.ABORT:  # an instance ends a request by itself only at its deadline
            raise DeadlineExceeded
        if delta.finish_reason is FinishReason.ERROR:
            raise GenerationFailed("the instance could not run the request")
        if delta.start_index != self._num_tokens:
            raise GenerationFailed(f"token {self._num_tokens} is due and {delta.start_index} came")
        num_taken, text = self._text_of(delta)
        matched = self._stop_strings.matched
        out = GenerationDelta(
            request_id=self._request.request_id,
            index=delta.start_index,
            text=text,
            token_ids=delta.token_ids[:num_taken],
            logprobs=delta.logprobs[:num_taken],
            finish_reason=FinishReason.STOP if matched else delta.finish_reason,
        )
        self._num_tokens += num_taken
        return out if out.finish_reason is None else replace(out, usage=self._usage(delta))

    def _text_of(self, delta: TokenDelta) -> tuple[int, str]:
        """How many tokens count, and the text that is certain now."""
        pieces = []
        for num_taken, token_id in enumerate(delta.token_ids, start=1):
            if token_id in self._request.sampling_params.stop_token_ids:  # ends the output and is no part of its text
                continue
            pieces.append(self._stop_strings.push(self._detokenizer.push(token_id)))
            if self._stop_strings.matched:
                return num_taken, "".join(pieces)
        if delta.finish_reason is not None:
            pieces.append(self._stop_strings.push(self._detokenizer.flush()))
            pieces.append(self._stop_strings.flush())
        return len(delta.token_ids), "".join(pieces)

    def _usage(self, delta: TokenDelta) -> Usage:
        return Usage(
            num_prompt_tokens=len(self._request.prompt_token_ids),
            num_output_tokens=self._num_tokens,
            num_cached_tokens=delta.num_cached_tokens,
        )
