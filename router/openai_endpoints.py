"""POST /v1/completions and /v1/chat/completions: body to requests, deltas to an answer."""

import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import ClassVar, Generic

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from cluster.text.chat_template import ChatTemplateError
from router.disconnect import until_disconnect
from router.errors import InvalidRequest, ModelNotFound
from router.generation import TextGenerator
from router.interleave import interleave
from router.openai_response import ChatAnswer, Choice, CompletionAnswer, total_usage
from router.openai_schema import Body, BodyT, ChatBody, CompletionBody, parse_body
from router.output_text import GenerationDelta
from router.resume import EventIds, ResumePoint
from router.sse import answer_events, send_events
from router.validation import GenerateRequest

MAX_BODY_BYTES = 32 * 2**20
LAST_EVENT_ID = "last-event-id"


class _Endpoint(ABC, Generic[BodyT]):
    """An ASGI application for one path."""

    body_type: type[BodyT]
    answer_type: ClassVar[type[CompletionAnswer]]
    id_prefix: ClassVar[str]
    field_names: ClassVar[dict[str, str]] = {}  # where this interface calls a request's field something else

    def __init__(self, generator: TextGenerator) -> None:
        self._generator = generator

    @abstractmethod
    def _requests(self, body: BodyT) -> list[GenerateRequest]:
        """One a prompt. Raises InvalidRequest."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            data = await _read_body(request)
        except ClientDisconnect:
            return
        body, last_event_id = parse_body(self.body_type, data), request.headers.get(LAST_EVENT_ID)
        await until_disconnect(receive, self._answer(body, last_event_id, send, scope, receive))

    async def _answer(self, body: BodyT, last_event_id: str | None, send: Send, scope: Scope, receive: Receive) -> None:
        self._check_model(body.model)
        try:
            if last_event_id:
                await self._go_on(body, last_event_id, send)
            else:
                await self._generate(body, send, scope, receive)
        except InvalidRequest as error:
            if error.field not in self.field_names:
                raise
            raise InvalidRequest(self.field_names[error.field], error.message) from None

    async def _generate(self, body: BodyT, send: Send, scope: Scope, receive: Receive) -> None:
        request_id = body.request_id or f"{self.id_prefix}{uuid.uuid4().hex}"
        requests = self._requests(body)
        if body.resumable:
            _check_resumable(body, len(requests))
        children = await self._children(requests, request_id, body.n)
        answer = self.answer_type(request_id, self._generator.model_info.model, self._generator.text.decode)
        headers = {"x-request-id": request_id}
        async with aclosing(interleave([self._generator.generate(child) for child in children])) as deltas:
            if body.stream:
                include_usage = body.stream_options.include_usage
                ids = EventIds(request_id) if body.resumable else None
                events = answer_events(deltas, answer, num_choices=body.n, include_usage=include_usage, ids=ids)
                async with aclosing(events):
                    await send_events(send, events, headers)
            else:
                choices = await _collect(deltas, len(children))
                usage = total_usage([choice.usage for choice in choices if choice.usage], body.n)
                await JSONResponse(answer.body(choices, usage), headers=headers)(scope, receive, send)

    async def _go_on(self, body: BodyT, last_event_id: str, send: Send) -> None:
        """The stream broke after this event; the body is sent again as it was."""
        requests = self._requests(body)
        _check_resumable(body, len(requests))
        try:
            point = ResumePoint.from_event_id(last_event_id)
        except ValueError:
            raise InvalidRequest(LAST_EVENT_ID, "is not the id of an event from here") from None
        answer = self.answer_type(point.request_id, self._generator.model_info.model, self._generator.text.decode)
        async with (
            aclosing(await self._generator.attach(point, tuple(body.stop), requests[0])) as continuation,
            aclosing(interleave([continuation.deltas()])) as deltas,
        ):
            answer.skip(0, continuation.known_token_ids)
            events = answer_events(
                deltas,
                answer,
                num_choices=1,
                include_usage=body.stream_options.include_usage,
                ids=EventIds(point.request_id, continuation.known_token_ids),
                is_continued=point.next_index > 0,
            )
            async with aclosing(events):
                await send_events(send, events, {"x-request-id": point.request_id})

    def _check_model(self, model: str | None) -> None:
        served = self._generator.model_info.model
        if model is not None and model != served:
            raise ModelNotFound("model", f"{model!r} is not served here; {served!r} is")

    async def _children(self, requests: list[GenerateRequest], request_id: str, n: int) -> list[GenerateRequest]:
        """`n` for each prompt, which is tokenised once for all of them; the i-th of them has the seed + i."""
        if len(requests) == 1 and n == 1:
            return [replace(requests[0], request_id=request_id)]
        children: list[GenerateRequest] = []
        for request in requests:
            prompt = await self._generator.tokenize(request)
            for choice in range(n):
                seed = None if request.sampling.seed is None else (request.sampling.seed + choice) % 2**64
                children.append(
                    replace(
                        request,
                        prompt=prompt,
                        request_id=f"{request_id}-{len(children)}",
                        sampling=replace(request.sampling, seed=seed),
                    )
                )
        return children


class CompletionEndpoint(_Endpoint[CompletionBody]):
    body_type = CompletionBody
    answer_type = CompletionAnswer
    id_prefix = "cmpl-"

    def _requests(self, body: CompletionBody) -> list[GenerateRequest]:
        return [body.request(prompt, logprobs=body.logprobs, max_tokens=body.max_tokens) for prompt in body.prompt]


class ChatEndpoint(_Endpoint[ChatBody]):
    body_type = ChatBody
    answer_type = ChatAnswer
    id_prefix = "chatcmpl-"
    field_names: ClassVar[dict[str, str]] = {"prompt": "messages", "logprobs": "top_logprobs"}

    def _requests(self, body: ChatBody) -> list[GenerateRequest]:
        request = body.request(self._render(body), logprobs=body.num_logprobs, max_tokens=body.limit)
        return [replace(request, add_special_tokens=False)]

    def _render(self, body: ChatBody) -> str:
        template = self._generator.text.chat_template
        if template is None:
            raise InvalidRequest("messages", "the model has no chat template; use /v1/completions")
        messages = [message.model_dump() for message in body.messages]
        try:
            return template.render(
                messages, add_generation_prompt=body.add_generation_prompt, variables=body.chat_template_kwargs
            )
        except ChatTemplateError as error:
            raise InvalidRequest("messages", str(error)) from None


def _check_resumable(body: Body, num_prompts: int) -> None:
    if not body.stream or body.n > 1 or num_prompts > 1:
        raise InvalidRequest("resumable", "is for a stream of one choice: stream true, n 1 and one prompt")


async def _read_body(request: Request) -> bytes:
    chunks = []
    num_bytes = 0
    async for chunk in request.stream():
        num_bytes += len(chunk)
        if num_bytes > MAX_BODY_BYTES:
            raise InvalidRequest("body", f"has more than {MAX_BODY_BYTES} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


async def _collect(deltas: AsyncIterator[tuple[int, GenerationDelta]], num_choices: int) -> list[Choice]:
    choices = [Choice() for _ in range(num_choices)]
    async for index, delta in deltas:
        choices[index].take(delta)
    return choices
