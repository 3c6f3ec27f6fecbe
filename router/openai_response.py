"""OpenAI's answers: chunks of a stream and whole bodies, for completions and for chat.

A chunk is put together around the text alone: what is the same in all chunks of a stream is encoded once.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.engine.sequence import FinishReason, TokenLogprobs
from router.output_text import GenerationDelta, Usage

LOWEST_LOGPROB = -9999.0  # JSON has no minus infinity; OpenAI says this

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(slots=True)
class Choice:
    """One output, as far as it has come."""

    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    usage: Usage | None = None

    def take(self, delta: GenerationDelta) -> None:
        self.texts.append(delta.text)
        self.token_ids += delta.token_ids
        self.logprobs += delta.logprobs
        self.finish_reason = delta.finish_reason
        self.usage = delta.usage


class CompletionAnswer:
    kind, chunk_kind = "text_completion", "text_completion"

    def __init__(self, request_id: str, model: str, decode: Callable[[Sequence[int]], str]) -> None:
        self._common = {"id": request_id, "created": int(time.time()), "model": model}
        self._decode = decode
        self._head = _encode({**self._common, "object": self.chunk_kind})[:-1]
        self._num_chars: Counter[int] = Counter()  # of the tokens said, by choice

    def chunk(self, index: int, delta: GenerationDelta) -> str:
        """JSON of what one choice gained; empty if the client would see nothing new."""
        if not (delta.text or delta.logprobs or delta.finish_reason):
            return ""
        logprobs = _encode(self._logprobs(index, delta.token_ids, delta.logprobs)) if delta.logprobs else "null"
        reason = f'"{delta.finish_reason.value}"' if delta.finish_reason else "null"
        return (
            f'{self._head},"choices":[{{"index":{index},{self._gain(delta)},"logprobs":{logprobs},'
            f'"finish_reason":{reason}}}]}}'
        )

    def opening(self, index: int) -> str:
        """JSON of a chunk before the first of a choice; empty if there is none."""
        return ""

    def skip(self, index: int, token_ids: Sequence[int]) -> None:
        """A choice goes on after these tokens, which the client has."""
        self._num_chars[index] += sum(len(self._decode([token_id])) for token_id in token_ids)

    def usage_chunk(self, usage: dict[str, Any]) -> str:
        return f'{self._head},"choices":[],"usage":{_encode(usage)}}}'

    def body(self, choices: Sequence[Choice], usage: dict[str, Any]) -> dict[str, Any]:
        return {
            **self._common,
            "object": self.kind,
            "choices": [
                {
                    "index": index,
                    **self._whole("".join(choice.texts)),
                    "logprobs": self._logprobs(index, choice.token_ids, choice.logprobs) if choice.logprobs else None,
                    "finish_reason": choice.finish_reason and choice.finish_reason.value,
                }
                for index, choice in enumerate(choices)
            ],
            "usage": usage,
        }

    def _gain(self, delta: GenerationDelta) -> str:
        return f'"text":{_encode(delta.text)}'

    def _whole(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def _logprobs(self, index: int, token_ids: Sequence[int], entries: Sequence[TokenLogprobs]) -> dict[str, Any]:
        tokens = [self._decode([token_id]) for token_id in token_ids]
        offsets = []
        for token in tokens:
            offsets.append(self._num_chars[index])
            self._num_chars[index] += len(token)
        return {
            "tokens": tokens,
            "token_logprobs": [_finite(entry.logprob) for entry in entries],
            "top_logprobs": [
                {token: _finite(entry.logprob)} | {self._decode([top]): _finite(logprob) for top, logprob in entry.top}
                for token, entry in zip(tokens, entries, strict=True)
            ],
            "text_offset": offsets,
        }


class ChatAnswer(CompletionAnswer):
    kind, chunk_kind = "chat.completion", "chat.completion.chunk"

    def opening(self, index: int) -> str:
        delta = '{"role":"assistant","content":""}'
        return f'{self._head},"choices":[{{"index":{index},"delta":{delta},"logprobs":null,"finish_reason":null}}]}}'

    def _gain(self, delta: GenerationDelta) -> str:
        return f'"delta":{{"content":{_encode(delta.text)}}}' if delta.text else '"delta":{}'

    def _whole(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def _logprobs(self, index: int, token_ids: Sequence[int], entries: Sequence[TokenLogprobs]) -> dict[str, Any]:
        content = [
            self._token(token_id, entry.logprob)
            | {"top_logprobs": [self._token(top, logprob) for top, logprob in entry.top]}
            for token_id, entry in zip(token_ids, entries, strict=True)
        ]
        return {"content": content, "refusal": None}

    def _token(self, token_id: int, logprob: float) -> dict[str, Any]:
        token = self._decode([token_id])
        return {"token": token, "logprob": _finite(logprob), "bytes": list(token.encode())}


def _finite(logprob: float) -> float:
    return max(logprob, LOWEST_LOGPROB)


def total_usage(usages: Sequence[Usage], num_choices: int) -> dict[str, Any]:
    """`num_choices` outputs in a row share a prompt, which counts once."""
    prompts = usages[::num_choices]
    num_prompt = sum(usage.num_prompt_tokens for usage in prompts)
    num_output = sum(usage.num_output_tokens for usage in usages)
    return {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_output,
        "total_tokens": num_prompt + num_output,
        "prompt_tokens_details": {"cached_tokens": sum(usage.num_cached_tokens for usage in prompts)},
    }
