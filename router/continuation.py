"""A request whose stream broke, from where its client has it."""

from collections.abc import AsyncGenerator
from dataclasses import replace

from router.backend import AttachedRequest, TokenDelta
from router.errors import CannotResume
from router.metrics import Metrics
from router.output_text import GenerationDelta, OutputText
from router.resume import ResumePoint


class Continuation:
    """Reads all tokens again from the first, so that the text goes on as if nothing had been; says only what is new."""

    def __init__(self, attached: AttachedRequest, output: OutputText, point: ResumePoint, metrics: Metrics) -> None:
        self._stream = attached.stream
        self._output = output
        self._point = point
        self._metrics = metrics
        self._known: list[TokenDelta] = []
        self._next: TokenDelta | None = None

    @property
    def known_token_ids(self) -> tuple[int, ...]:
        """What the client has."""
        return tuple(token_id for delta in self._known for token_id in delta.token_ids)

    async def find_place(self) -> None:
        """Reads what the client has; one that recovers may first have to compute it again. Raises CannotResume."""
        try:
            await self._read_known()
            if not self._point.is_after(self.known_token_ids):
                raise CannotResume("these tokens are not the beginning of this request's output")
        except BaseException:
            await self.aclose()
            raise

    async def _read_known(self) -> None:
        num_missing = self._point.next_index
        if num_missing == 0:
            return
        async for delta in self._stream:
            known, rest = _split(delta, num_missing)
            self._known.append(known)
            num_missing -= len(known.token_ids)
            if num_missing == 0:
                self._next = rest
                return
            if delta.finish_reason is not None:
                break
        raise CannotResume(f"the output has {num_missing} tokens less than that")

    async def deltas(self) -> AsyncGenerator[GenerationDelta]:
        """As of `TextGenerator.generate`. The last is said again to a client that has all tokens."""
        try:
            for known in self._known:
                delta = self._output.take(known)
                if delta.finish_reason is not None:
                    yield self._end(replace(delta, index=self._point.next_index, text="", token_ids=(), logprobs=()))
                    return
            if self._next is not None:
                delta = self._say(self._next)
                yield delta
                if delta.finish_reason is not None:
                    return
            async for token_delta in self._stream:
                delta = self._say(token_delta)
                yield delta
                if delta.finish_reason is not None:
                    return
            raise CannotResume("the request was ended here: are the stop strings those it was sent with?")
        finally:
            await self.aclose()

    def _say(self, token_delta: TokenDelta) -> GenerationDelta:
        delta = self._output.take(token_delta)
        self._metrics.generation_tokens.inc(len(delta.token_ids))
        return delta if delta.finish_reason is None else self._end(delta)

    def _end(self, delta: GenerationDelta) -> GenerationDelta:
        assert delta.finish_reason is not None
        self._stream.finish()
        return delta

    async def aclose(self) -> None:
        await self._stream.aclose()


def _split(delta: TokenDelta, num_tokens: int) -> tuple[TokenDelta, TokenDelta | None]:
    """The first `num_tokens`, and the rest with the end, if there is any."""
    if len(delta.token_ids) < num_tokens:
        return replace(delta, finish_reason=None), None
    first = replace(
        delta, token_ids=delta.token_ids[:num_tokens], logprobs=delta.logprobs[:num_tokens], finish_reason=None
    )
    rest = replace(
        delta,
        start_index=delta.start_index + num_tokens,
        token_ids=delta.token_ids[num_tokens:],
        logprobs=delta.logprobs[num_tokens:],
    )
    return first, rest if rest.token_ids or rest.finish_reason is not None else None
