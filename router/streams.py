"""The tokens of one request on their way from the ledger to its clients: a log, and readers of it."""

import asyncio
from typing import Protocol

from cluster.engine.sequence import FinishReason, TokenLogprobs
from router.backend import AdmittedRequest, TokenDelta
from router.errors import BatonError


class StreamEvents(Protocol):
    def on_satisfied(self, stream: "RequestStream") -> None:
        """Its client has all it wants, and the request is not over yet."""

    def on_deserted(self, stream: "RequestStream") -> None:
        """The last reader left before the end."""


class RequestStream:
    """All output tokens so far. It is unbounded: no reader can hold up the step message that many requests share."""

    def __init__(self, request: AdmittedRequest, events: StreamEvents) -> None:
        self.request = request
        self.is_resumable = request.resumable
        self.is_over = False
        self.token_ids: list[int] = []
        self.logprobs: list[TokenLogprobs] = []
        self.num_cached_tokens = 0
        self.finish_reason: FinishReason | None = None
        self.error: BatonError | None = None
        self._events = events
        self._readers: set[StreamReader] = set()

    def put(self, delta: TokenDelta) -> None:
        """The ledger lets pass exactly the next tokens."""
        assert delta.start_index == len(self.token_ids)
        self.token_ids += delta.token_ids
        self.logprobs += delta.logprobs
        self.num_cached_tokens = delta.num_cached_tokens
        self.finish_reason = delta.finish_reason
        self.is_over = delta.finish_reason is not None
        self._wake()

    def end(self, error: BatonError | None = None) -> None:
        """Nothing more comes; nothing changes if it was over before."""
        if not self.is_over:
            self.is_over, self.error = True, error
            self._wake()

    def read(self) -> "StreamReader":
        """From the first token on. Any number may read, each at its own pace."""
        reader = StreamReader(self)
        self._readers.add(reader)
        return reader

    def satisfy(self) -> None:
        if not self.is_over:
            self._events.on_satisfied(self)

    def leave(self, reader: "StreamReader") -> None:
        if reader in self._readers:
            self._readers.remove(reader)
            if not self._readers and not self.is_over:
                self._events.on_deserted(self)

    def _wake(self) -> None:
        for reader in self._readers:
            reader.has_news.set()


class StreamReader:
    """What a front iterates over: a `router.backend.TokenStream`. One that is slow gets several tokens at once."""

    def __init__(self, stream: RequestStream) -> None:
        self._stream = stream
        self._next_index = 0
        self._is_over = False
        self.has_news = asyncio.Event()

    def __aiter__(self) -> "StreamReader":
        return self

    async def __anext__(self) -> TokenDelta:
        stream = self._stream
        while not self._is_over:
            if self._next_index < len(stream.token_ids) or stream.finish_reason is not None:
                return self._take()
            if stream.is_over:
                self._is_over = True
                if stream.error is not None:
                    raise stream.error
                break
            self.has_news.clear()
            await self.has_news.wait()
        raise StopAsyncIteration

    def _take(self) -> TokenDelta:
        """All that was not read; the finish reason rides with the last token."""
        stream, start = self._stream, self._next_index
        self._next_index, self._is_over = len(stream.token_ids), stream.finish_reason is not None
        return TokenDelta(
            start_index=start,
            token_ids=tuple(stream.token_ids[start:]),
            logprobs=tuple(stream.logprobs[start:]),
            finish_reason=stream.finish_reason,
            num_cached_tokens=stream.num_cached_tokens,
        )

    def finish(self) -> None:
        self._stream.satisfy()

    async def aclose(self) -> None:
        self._is_over = True
        self._stream.leave(self)
