"""One request over any number of streams: where one breaks, another goes on, each token once.

Generate --breaks--> Attach --NOT_FOUND--> sent again, under the same id and seed, and Attach to that
                      ^  |
                      +--+ breaks
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from grpc.aio import AioRpcError, Metadata

from cluster.pb import baton_pb2
from router.resume import ResumePoint

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
_BROKEN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}
_RICH_STATUS = "grpc-status-details-bin"  # goes with every error that a router says itself

_Way: TypeAlias = Callable[[], Awaitable[Any]]  # to a stream of deltas


class ResumableRequest:
    """`request` has an id and a seed: sent twice, it is the same request.

    After a break it tries until the request's deadline; without one, for `reconnect_timeout_s`; 0: not at all.
    """

    def __init__(
        self,
        stub: Any,
        channel: grpc.aio.Channel,
        request: baton_pb2.GenerateRequest,
        *,
        timeout_s: float | None,
        reconnect_timeout_s: float,
    ) -> None:
        self._stub, self._channel, self._request = stub, channel, request
        self._clock = asyncio.get_running_loop().time
        self._deadline_s = None if timeout_s is None else self._clock() + timeout_s
        self._reconnect_timeout_s = reconnect_timeout_s
        self._give_up_s: float | None = None
        self._pause_s = _FIRST_PAUSE_S
        self._token_ids: list[int] = []
        self._calls: list[Any] = []
        self.is_over = False

    async def deltas(self) -> AsyncGenerator[baton_pb2.GenerateDelta]:
        """Raises what the router says, and what broke the last stream when there is no other way."""
        way: _Way = self._generate
        try:
            while True:
                try:
                    async for delta in await way():
                        self._take(delta)
                        yield delta
                    if self.is_over:
                        return
                    raise _error(grpc.StatusCode.UNAVAILABLE, "the stream ended without a finish reason")
                except AioRpcError as error:
                    way = await self._another_way(way, error)
        finally:
            for call in self._calls:
                call.cancel()  # nothing, when it is over

    def _take(self, delta: baton_pb2.GenerateDelta) -> None:
        self._token_ids += delta.token_ids
        self.is_over = bool(delta.finish_reason)
        self._give_up_s, self._pause_s = None, _FIRST_PAUSE_S
        while len(self._calls) > 1:
            self._calls.pop(0).cancel()

    async def _another_way(self, way: _Way, error: AioRpcError) -> _Way:
        if way == self._attach and error.code() is grpc.StatusCode.NOT_FOUND:
            return self._send_again
        if way == self._send_again and error.code() is grpc.StatusCode.ALREADY_EXISTS:
            return self._attach  # it had arrived
        if not (_is_broken(error) and self._reconnect_timeout_s > 0):
            self.is_over = True
            raise error
        await self._reconnect(error)
        return self._attach

    async def _reconnect(self, error: AioRpcError) -> None:
        if self._give_up_s is None:
            self._give_up_s = self._deadline_s or self._clock() + self._reconnect_timeout_s
        try:
            async with asyncio.timeout_at(self._give_up_s):
                await asyncio.sleep(self._pause_s)
                self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
                await self._channel.channel_ready()
        except TimeoutError:
            self.is_over = True
            if self._deadline_s is None:
                raise error from None
            details = f"the deadline passed while the stream was broken: {error.details()}"
            raise _error(grpc.StatusCode.DEADLINE_EXCEEDED, details) from None

    async def _generate(self) -> Any:
        timeout_s = self._time_left_s()
        if timeout_s is not None:
            self._request.timeout_s = timeout_s
        return self._open(self._stub.Generate(self._request, timeout=timeout_s))

    async def _attach(self) -> Any:
        point = ResumePoint.after(self._request.request_id, self._token_ids)
        request = baton_pb2.AttachRequest(
            request_id=point.request_id,
            next_index=point.next_index,
            tokens_hash=point.tokens_hash,
            stop=self._request.sampling_params.stop,
            request=self._request,
        )
        return self._open(self._stub.Attach(request, timeout=self._time_left_s()))

    async def _send_again(self) -> Any:
        """Where tokens are known, the router compares them with the new ones and leaves them out."""
        call = await self._generate()
        if not self._token_ids:
            return call
        await call.read()  # it is there
        return await self._attach()

    def _open(self, call: Any) -> Any:
        self._calls.append(call)
        return call

    def _time_left_s(self) -> float | None:
        return None if self._deadline_s is None else max(0.001, self._deadline_s - self._clock())


def _is_broken(error: AioRpcError) -> bool:
    """Whether the stream broke, rather than that the router said so."""
    metadata: Any = error.trailing_metadata() or ()
    return error.code() in _BROKEN and _RICH_STATUS not in {key for key, _ in metadata}


def _error(code: grpc.StatusCode, details: str) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(), details, None)
