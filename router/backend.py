"""The seam between the fronts and what runs the tokens: admitted requests go in, streams of tokens come out."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cluster.engine.sampling_params import SamplingParams
from cluster.engine.sequence import FinishReason, TokenLogprobs
from cluster.pb import baton_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmittedRequest:
    """`deadline_s` is on the clock of `time.monotonic`."""

    request_id: str
    prompt_token_ids: Sequence[int]
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

    async def attach(self, request_id: str, is_meant: Callable[[AdmittedRequest], bool]) -> AttachedRequest:
        """One more reader of a request that runs or has just ended. Raises UnknownRequest and NoInstance.

        An id may be used again: CannotResume, when a request runs under it that is not meant.
        """

    def abort(self, request_id: str) -> bool:
        """False: no such request runs."""

    def status(self) -> baton_pb2.ClusterStatus: ...
