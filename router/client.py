"""A client of the gRPC front.

async with BatonClient("127.0.0.1:50051") as client:
    async for delta in client.generate("Once upon a time", max_tokens=32):
        print(delta.text, end="")
"""

import asyncio
import secrets
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
from grpc.aio import AioRpcError, Metadata

from cluster.engine.sequence import FinishReason, TokenLogprobs
from cluster.pb import baton_pb2, baton_pb2_grpc
from cluster.wire.channel import MAX_MESSAGE_BYTES
from cluster.wire.values import finish_reason_from_pb, logprobs_from_pb
from router.resuming import ResumableRequest
from router.timeouts import CALL_TIMEOUT_S, MIGRATE_CALL_TIMEOUT_S, SILENCE_S

_ABORT_TIMEOUT_S = 1.0
# A router that comes back is found soon: gRPC's own pauses grow to two minutes.
_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


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
    """Every call raises `grpc.aio.AioRpcError`, whose code and details say what was wrong.

    Once it was connected to a router, a resumable request lives through the router's death: see `router.resuming`.
    """

    def __init__(self, address: str, *, reconnect_timeout_s: float = 60.0) -> None:
        """`address` is host:port of a router's gRPC front. A request with a deadline tries to reconnect until then."""
        self._reconnect_timeout_s = reconnect_timeout_s
        self._was_connected = False
        self._aborts: set[asyncio.Task[None]] = set()
        self._running: set[str] = set()
        self._channel = grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
        self._stub: Any = baton_pb2_grpc.BatonStub(self._channel)  # type: ignore[no-untyped-call]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Requests that still run are aborted."""
        for request_id in self._running:
            self._abandon(request_id)
        self._running.clear()
        await asyncio.gather(*self._aborts)
        await self._channel.close(None)

    async def generate(
        self,
        prompt: str | Sequence[int],
        *,
        request_id: str = "",
        priority: int = 0,
        timeout_s: float | None = None,
        resumable: bool = True,
        **sampling: Any,
    ) -> AsyncGenerator[baton_pb2.GenerateDelta]:
        """Deltas as they come; `sampling` are fields of proto SamplingParams. Leaving the loop aborts the request.

        `resumable`: when the stream breaks, a new one goes on where it broke, and the text is that of an unbroken one.
        """
        request = baton_pb2.GenerateRequest(
            request_id=request_id or uuid.uuid4().hex,
            priority=priority,
            timeout_s=timeout_s,
            sampling_params=baton_pb2.SamplingParams(**{"seed": secrets.randbits(63), **sampling}),
            resumable=resumable,
        )
        if isinstance(prompt, str):
            request.text = prompt
        else:
            request.token_ids.ids.extend(prompt)
        streaming = self._resumable(request, timeout_s) if resumable else self._once(request, timeout_s)
        async with aclosing(streaming) as deltas:
            async for delta in deltas:
                yield delta

    async def _once(
        self, request: baton_pb2.GenerateRequest, timeout_s: float | None
    ) -> AsyncGenerator[baton_pb2.GenerateDelta]:
        call = self._stub.Generate(request, timeout=timeout_s)
        try:
            async for delta in call:
                yield delta
        finally:
            call.cancel()  # nothing, when it is over

    async def _resumable(
        self, request: baton_pb2.GenerateRequest, timeout_s: float | None
    ) -> AsyncGenerator[baton_pb2.GenerateDelta]:
        reconnect_timeout_s = self._reconnect_timeout_s if await self._is_or_was_connected(timeout_s) else 0.0
        resumable = ResumableRequest(
            self._stub, self._channel, request, timeout_s=timeout_s, reconnect_timeout_s=reconnect_timeout_s
        )
        self._running.add(request.request_id)
        try:
            async with aclosing(resumable.deltas()) as deltas:
                async for delta in deltas:
                    yield delta
        finally:
            if request.request_id in self._running and not resumable.is_over:
                self._abandon(request.request_id)
            self._running.discard(request.request_id)

    async def _is_or_was_connected(self, timeout_s: float | None) -> bool:
        """An address where nobody ever answered is wrong; elsewhere a router may come back."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not self._was_connected:
                    state = self._channel.get_state(try_to_connect=True)
                    if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
                        break
                    self._was_connected = state is grpc.ChannelConnectivity.READY
                    if not self._was_connected:
                        await self._channel.wait_for_state_change(state)
        return self._was_connected

    def _abandon(self, request_id: str) -> None:
        """A cancelled call alone would look like a lost client, which is waited for."""
        task = asyncio.create_task(self._abort_quietly(request_id))
        self._aborts.add(task)
        task.add_done_callback(self._aborts.discard)

    async def _abort_quietly(self, request_id: str) -> None:
        with suppress(AioRpcError):
            await self._stub.Abort(baton_pb2.AbortRequest(request_id=request_id), timeout=_ABORT_TIMEOUT_S)

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
        request = baton_pb2.AbortRequest(request_id=request_id)
        response: baton_pb2.AbortResponse = await self._stub.Abort(request, timeout=CALL_TIMEOUT_S)
        return response.found

    async def model_info(self, timeout_s: float | None = None) -> baton_pb2.ModelInfo:
        info: baton_pb2.ModelInfo = await self._stub.GetModelInfo(baton_pb2.GetModelInfoRequest(), timeout=timeout_s)
        return info

    async def migrate(self, request_id: str, instance: str) -> baton_pb2.MigrateResponse:
        """When the request runs there. FAILED_PRECONDITION: it stays where it is, and the details say why."""
        request = baton_pb2.MigrateRequest(request_id=request_id, instance=instance)
        response: baton_pb2.MigrateResponse = await self._stub.Migrate(request, timeout=MIGRATE_CALL_TIMEOUT_S)
        return response

    async def drain(self, instance: str, *, undo: bool = False) -> AsyncGenerator[baton_pb2.DrainProgress]:
        """Until nothing is there any more; it goes on when nobody listens."""
        request = baton_pb2.DrainRequest(instance=instance, undo=undo)
        async with aclosing(_until_silent(self._stub.Drain(request))) as steps:
            async for progress in steps:
                yield progress

    async def flip(self, instance: str, role: str) -> AsyncGenerator[baton_pb2.DrainProgress]:
        """Until the instance takes requests in its new role."""
        request = baton_pb2.FlipRequest(instance=instance, role=role)
        async with aclosing(_until_silent(self._stub.Flip(request))) as steps:
            async for progress in steps:
                yield progress

    async def probe(self, budget_s: float = 0.0) -> AsyncGenerator[baton_pb2.ProbeProgress]:
        """Until every link has been measured once more; the last message has what is believed of all of them."""
        async with aclosing(_until_silent(self._stub.Probe(baton_pb2.ProbeRequest(budget_s=budget_s)))) as steps:
            async for progress in steps:
                yield progress

    async def trace(self, request_id: str) -> baton_pb2.RequestTrace:
        """Where the request has been."""
        request = baton_pb2.TraceRequest(request_id=request_id)
        trace: baton_pb2.RequestTrace = await self._stub.Trace(request, timeout=CALL_TIMEOUT_S)
        return trace

    async def set_dispatch_policy(self, policy: str) -> str:
        """For the requests that come from now on; returns which it was."""
        request = baton_pb2.SetDispatchPolicyRequest(policy=policy)
        response: baton_pb2.SetDispatchPolicyResponse = await self._stub.SetDispatchPolicy(
            request, timeout=CALL_TIMEOUT_S
        )
        return response.previous

    async def status(self, timeout_s: float | None = None) -> baton_pb2.ClusterStatus:
        status: baton_pb2.ClusterStatus = await self._stub.Status(baton_pb2.StatusRequest(), timeout=timeout_s)
        return status


async def _until_silent(call: Any) -> AsyncGenerator[Any]:
    """All that it says; DEADLINE_EXCEEDED when it says nothing for `SILENCE_S`."""
    messages = aiter(call)
    try:
        while True:
            async with asyncio.timeout(SILENCE_S):
                progress = await anext(messages, None)
            if progress is None:
                return
            yield progress
    except TimeoutError:
        code, details = grpc.StatusCode.DEADLINE_EXCEEDED, f"the router has said nothing for {SILENCE_S:.0f} s"
        raise AioRpcError(code, Metadata(), Metadata(), details, None) from None
    finally:
        call.cancel()  # nothing, when it is over


def fetch_status(address: str, timeout_s: float = CALL_TIMEOUT_S) -> baton_pb2.ClusterStatus:
    """The cluster's status, for callers without an event loop."""

    async def fetch() -> baton_pb2.ClusterStatus:
        async with BatonClient(address) as client:
            return await client.status(timeout_s)

    return asyncio.run(fetch())
