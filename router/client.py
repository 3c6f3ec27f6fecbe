"""A client of the gRPC front.

async with BatonClient("127.0.0.1:50051") as client:
    async for delta in client.generate("Once upon a time", max_tokens=32):
        print(delta.text, end="")
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc

from cluster.engine.sequence import FinishReason, TokenLogprobs
from cluster.pb import baton_pb2, baton_pb2_grpc
from cluster.wire.values import finish_reason_from_pb, logprobs_from_pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    request_id: str
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...]
    finish_reason: FinishReason
    num_prompt_tokens: int
    num_cached_tokens: int


class BatonClient:
    """Every call raises `grpc.aio.AioRpcError`, whose code and details say what was wrong."""

    def __init__(self, address: str) -> None:
        """`address` is host:port of a router's gRPC front."""
        self._channel = grpc.aio.insecure_channel(address)
        self._stub: Any = baton_pb2_grpc.BatonStub(self._channel)  # type: ignore[no-untyped-call]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Requests that still run are aborted."""
        await self._channel.close(None)

    async def generate(
        self,
        prompt: str | Sequence[int],
        *,
        request_id: str = "",
        priority: int = 0,
        timeout_s: float | None = None,
        **sampling: Any,
    ) -> AsyncGenerator[baton_pb2.GenerateDelta]:
        """Deltas as they come; `sampling` are fields of proto SamplingParams. Leaving the loop aborts the request."""
        request = baton_pb2.GenerateRequest(
            request_id=request_id,
            priority=priority,
            timeout_s=timeout_s,
            sampling_params=baton_pb2.SamplingParams(**sampling),
        )
        if isinstance(prompt, str):
            request.text = prompt
        else:
            request.token_ids.ids.extend(prompt)
        call = self._stub.Generate(request, timeout=timeout_s)
        try:
            async for delta in call:
                yield delta
        finally:
            call.cancel()  # nothing, when it is over

    async def complete(self, prompt: str | Sequence[int], **options: Any) -> Completion:
        """The whole output; `options` as of `generate`."""
        deltas = [delta async for delta in self.generate(prompt, **options)]
        last = deltas[-1]
        reason = finish_reason_from_pb(last.finish_reason)
        assert reason is not None, "a stream that ends well has a finish reason"
        return Completion(
            request_id=last.request_id,
            text="".join(delta.text for delta in deltas),
            token_ids=tuple(token_id for delta in deltas for token_id in delta.token_ids),
            logprobs=logprobs_from_pb(entry for delta in deltas for entry in delta.logprobs),
            finish_reason=reason,
            num_prompt_tokens=last.usage.num_prompt_tokens,
            num_cached_tokens=last.usage.num_cached_tokens,
        )

    async def abort(self, request_id: str) -> bool:
        """False: no such request runs."""
        response: baton_pb2.AbortResponse = await self._stub.Abort(baton_pb2.AbortRequest(request_id=request_id))
        return response.found

    async def model_info(self, timeout_s: float | None = None) -> baton_pb2.ModelInfo:
        info: baton_pb2.ModelInfo = await self._stub.GetModelInfo(baton_pb2.GetModelInfoRequest(), timeout=timeout_s)
        return info

    async def status(self, timeout_s: float | None = None) -> baton_pb2.ClusterStatus:
        status: baton_pb2.ClusterStatus = await self._stub.Status(baton_pb2.StatusRequest(), timeout=timeout_s)
        return status


def fetch_status(address: str, timeout_s: float = 5.0) -> baton_pb2.ClusterStatus:
    """The cluster's status, for callers without an event loop."""

    async def fetch() -> baton_pb2.ClusterStatus:
        async with BatonClient(address) as client:
            return await client.status(timeout_s)

    return asyncio.run(fetch())
