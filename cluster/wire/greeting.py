"""How a stream inside the cluster begins: hello, challenge, proof. Before the proof nothing is acted on.

What is greeted are the messages of proto/instance.proto: each kind has the `hello` and the `proof` of the caller, or
the `challenge` of the called.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError

from cluster.drops import Drops
from cluster.handshake import Called, Caller, Unauthenticated
from cluster.pb.instance_pb2 import Proof
from cluster.secret import ClusterSecret, Kind

# Whoever opens a stream has its hello ready, and the proof is computed at once.
_GREETING_TIMEOUT_S = 5.0

T = TypeVar("T")

log = logging.getLogger(__name__)


class Doorkeeper:
    """For the called: lets in those who know the cluster's secret; the others are turned away and counted."""

    def __init__(self, secret: ClusterSecret, kind: Kind, drops: Drops) -> None:
        self._secret = secret
        self._kind = kind
        self._drops = drops

    async def hear_hello(self, messages: AsyncIterator[Any], context: "grpc.aio.ServicerContext[Any, Any]") -> Any:
        """Who says to be there. Nothing is known yet, and nothing may be done before `check_proof`."""
        message = await self._next(messages, context)
        if message.WhichOneof("message") != "hello":
            await self._turn_away(context, grpc.StatusCode.INVALID_ARGUMENT, "the stream must open with a hello")
        return message.hello

    def challenge(self, hello: Any) -> Called:
        return Called(self._secret, self._kind, hello)

    async def check_proof(
        self, called: Called, messages: AsyncIterator[Any], context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> None:
        """Returns only if it is right."""
        message = await self._next(messages, context)
        try:
            called.check(message.proof)
        except Unauthenticated as error:
            await self._turn_away(context, grpc.StatusCode.UNAUTHENTICATED, str(error))

    async def _next(self, messages: AsyncIterator[T], context: "grpc.aio.ServicerContext[Any, Any]") -> T:
        try:
            return await asyncio.wait_for(anext(messages), _GREETING_TIMEOUT_S)
        except (TimeoutError, StopAsyncIteration, DecodeError):
            code = grpc.StatusCode.INVALID_ARGUMENT
            await self._turn_away(context, code, "the stream must open with a hello and a proof")

    async def _turn_away(
        self, context: "grpc.aio.ServicerContext[Any, Any]", code: grpc.StatusCode, reason: str
    ) -> NoReturn:
        self._drops.on_unauthenticated()
        log.warning("a %s stream from %s is turned away: %s", self._kind.name, context.peer(), reason)
        await context.abort(code, reason)
        raise AssertionError("abort raises")


async def speak(hello: T, proof: "asyncio.Future[T | None]", outgoing: "asyncio.Queue[T | None]") -> AsyncIterator[T]:
    """For the caller, all that it says until it falls silent: what is in the queue waits until it has proved itself."""
    yield hello
    if (proven := await proof) is None:
        return
    yield proven
    while (message := await outgoing.get()) is not None:
        yield message


def fall_silent(proof: "asyncio.Future[T | None]", outgoing: "asyncio.Queue[T | None]") -> None:
    """A call that is over: gRPC would leave the task that reads what is said waiting for ever."""
    if not proof.done():
        proof.set_result(None)
    outgoing.put_nowait(None)


async def answer_challenge(messages: AsyncIterator[Any], caller: Caller) -> Proof:
    """For the caller, the first that it hears. Raises Unauthenticated."""
    message = await anext(messages, None)
    if message is None or message.WhichOneof("message") != "challenge":
        raise Unauthenticated("it does not show that it knows the cluster's secret")
    return caller.answer(message.challenge)
