"""Prompts that take no room: made of what the trace says of their prefixes, token by token only where one is asked for.

Tokens are equal where the trace says that prefixes are; all others are a request's own.
"""

from collections.abc import Iterator, Sequence
from typing import overload

from cluster.messages import SequenceState
from deploy.workload.request import WorkloadRequest

_OWN = 1 << 31  # keeps the tokens of requests apart from those of hash ids


class _Prompt(Sequence[int]):
    """Each hash block begins with a token that is its id, what follows them with one that is the request's own."""

    def __init__(self, request: WorkloadRequest, own_token: int) -> None:
        self._num_tokens = request.num_prompt_tokens
        self._step = request.hash_block_tokens
        self._hash_ids = request.hash_ids
        self._own_token = own_token

    def __len__(self) -> int:
        return self._num_tokens

    def __iter__(self) -> Iterator[int]:
        return iter(self[:])

    @overload
    def __getitem__(self, at: int) -> int: ...

    @overload
    def __getitem__(self, at: slice) -> list[int]: ...

    def __getitem__(self, at: int | slice) -> int | list[int]:
        if not isinstance(at, slice):
            return self[at : at + 1][0]
        start, stop, _ = at.indices(self._num_tokens)
        tokens = [0] * (stop - start)
        num_named = len(self._hash_ids)
        for index in range(-(-start // self._step), min(num_named, -(-stop // self._step))):
            tokens[index * self._step - start] = self._hash_ids[index] % _OWN
        if start <= (own := num_named * self._step) < stop:
            tokens[own - start] = self._own_token
        return tokens


def own_token(number: int) -> int:
    return _OWN + number % (_OWN // 2)


def make_prompt(request: WorkloadRequest, number: int) -> Sequence[int]:
    """Without holding its tokens. Two prompts of which nothing is said begin differently."""
    if request.hash_ids:
        return _Prompt(request, own_token(number))
    first = own_token(number)
    return range(first, first + request.num_prompt_tokens)


class Computed(Sequence[int]):
    """A prompt and the first `num_output_tokens` that followed it, of which all are the request's own."""

    def __init__(self, state: SequenceState, num_output_tokens: int) -> None:
        self._prompt = state.prompt_token_ids
        self._num_output_tokens = num_output_tokens
        self._own_token = state.sampling_params.seed

    def __len__(self) -> int:
        return len(self._prompt) + self._num_output_tokens

    @overload
    def __getitem__(self, at: int) -> int: ...

    @overload
    def __getitem__(self, at: slice) -> list[int]: ...

    def __getitem__(self, at: int | slice) -> int | list[int]:
        if not isinstance(at, slice):
            return self[at : at + 1][0]
        start, stop, _ = at.indices(len(self))
        num_output = max(0, stop - max(start, len(self._prompt)))
        return [*self._prompt[start:stop], *([self._own_token] * num_output)]
