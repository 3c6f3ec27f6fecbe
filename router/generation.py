"""From a client's request to text: the one path behind both fronts.

check -> tokenise -> resolve -> Backend.submit -> token deltas -> detokenise -> match stop strings -> text deltas
"""

import asyncio
import secrets
import time
import uuid
from collections.abc import AsyncGenerator, Callable

from cluster.text.tokenizer import Tokenizer
from router.backend import AdmittedRequest, Backend
from router.continuation import Continuation
from router.errors import GenerationFailed
from router.metrics import Metrics
from router.model_info import ModelInfo
from router.output_text import GenerationDelta, OutputText
from router.resume import ResumePoint
from router.sameness import asks_the_same
from router.validation import (
    GenerateRequest,
    Limits,
    check_prompt_tokens,
    check_request,
    check_stop_strings,
    resolve_sampling,
)

LONG_TEXT_CHARS = 4096


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
            output = OutputText(self.text, admitted, request.sampling.stop)
            stream = self.backend.submit(admitted)
            observed.admitted(len(admitted.prompt_token_ids))
            try:
                async for token_delta in stream:
                    delta = output.take(token_delta)
                    observed.tokens(len(delta.token_ids))
                    if delta.finish_reason is not None:
                        stream.finish()  # a stop string ends it before the instances know
                        observed.finished()
                    yield delta
                    if delta.finish_reason is not None:
                        return
                raise GenerationFailed("the tokens ended without a finish reason")
            finally:
                await stream.aclose()

    async def attach(
        self, point: ResumePoint, stop: tuple[str, ...] = (), request: GenerateRequest | None = None
    ) -> Continuation:
        """Goes on after what a client has; `stop` as in its request. Raises BatonErrors; close what it returns.

        With `request`, only if it is the one that has this id now: ids may be used again.
        """
        check_stop_strings(stop, self.limits)
        attached = await self.backend.attach(point.request_id, await self._recognising(request))
        continuation = Continuation(attached, OutputText(self.text, attached.request, stop), point, self.metrics)
        await continuation.find_place()
        return continuation

    async def _recognising(self, request: GenerateRequest | None) -> Callable[[AdmittedRequest], bool]:
        if request is None:
            return lambda _: True
        meant, has_seed = await self._admit(request), request.sampling.seed is not None
        return lambda found: asks_the_same(meant, found, has_seed=has_seed)

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
