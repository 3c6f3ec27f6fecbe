"""One request's output as its client sees it: whole characters, up to a stop string."""

from dataclasses import dataclass, replace

from cluster.engine.sequence import FinishReason, TokenLogprobs
from cluster.text.detokenizer import Detokenizer
from cluster.text.stop_strings import StopStrings
from cluster.text.tokenizer import Tokenizer
from router.backend import AdmittedRequest, TokenDelta
from router.errors import DeadlineExceeded, GenerationFailed


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


class OutputText:
    """One request's text so far. It depends on the tokens alone, and not on how they are divided into deltas."""

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
