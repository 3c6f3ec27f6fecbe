"""Server-sent events of a streamed answer: one write a delta, the last with usage and [DONE]."""

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping

from starlette.types import Send

from router.errors import BatonError, GenerationFailed
from router.http_errors import error_body
from router.openai_response import CompletionAnswer, total_usage
from router.output_text import GenerationDelta, Usage
from router.resume import EventIds

log = logging.getLogger(__name__)

HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would collect events otherwise
)


async def answer_events(
    deltas: AsyncIterator[tuple[int, GenerationDelta]],
    answer: CompletionAnswer,
    *,
    num_choices: int,
    include_usage: bool,
    ids: EventIds | None = None,
    is_continued: bool = False,
) -> AsyncGenerator[bytes]:
    """Events for `deltas` of (choice, delta); `num_choices` of the choices in a row share a prompt.

    With `ids`, which is for one choice alone, each delta's last event has one; `is_continued`: it was opened before.
    """
    usages: dict[int, Usage] = {}
    opened = {0} if is_continued else set()
    async for index, delta in deltas:
        id_line = f"\nid: {ids.after(delta.token_ids)}" if ids else ""
        chunks = [answer.chunk(index, delta)]
        if index not in opened and chunks[0]:
            opened.add(index)
            chunks.insert(0, answer.opening(index))
        if delta.usage is not None:
            usages[index] = delta.usage
        if events := "\n\n".join(f"data: {chunk}" for chunk in chunks if chunk):
            yield f"{events}{id_line}\n\n".encode()
    if include_usage:
        usage = total_usage([usages[index] for index in sorted(usages)], num_choices)
        yield f"data: {answer.usage_chunk(usage)}\n\n".encode()
    yield b"data: [DONE]\n\n"


async def send_events(send: Send, events: AsyncIterator[bytes], headers: Mapping[str, str]) -> None:
    """Raises what the first event raises, while there still is a status line to say it; later errors are an event."""
    body = await anext(events)
    extra = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, *extra]})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    try:
        async for body in events:
            await send({"type": "http.response.body", "body": body, "more_body": True})
    except BatonError as error:
        await send(_error_event(error))
    except Exception:
        log.exception("a stream failed for a reason that is ours")
        await send(_error_event(GenerationFailed("internal error")))
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _error_event(error: BatonError) -> dict[str, object]:
    event = f"data: {json.dumps(error_body(error))}\n\n"
    return {"type": "http.response.body", "body": event.encode(), "more_body": True}
