"""The control streams of handovers: those that sources open to us, and those that we open to receivers."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc

from cluster.instance.core import InstanceCore
from cluster.instance.step_loop import StepLoop
from cluster.messages import Grant, Holder, ReceiverMessage, SourceMessage
from cluster.pb import instance_pb2, instance_pb2_grpc
from cluster.wire.channel import CHANNEL_OPTIONS
from cluster.wire.peer_messages import (
    receiver_message_from_pb,
    receiver_message_to_pb,
    source_message_from_pb,
    source_message_to_pb,
)
from cluster.wire.values import holder_from_pb, holder_to_pb


class Sources:
    """As a receiver: one stream per source."""

    def __init__(self, holder: Holder, core: InstanceCore, steps: StepLoop) -> None:
        self._holder = holder
        self._core = core
        self._steps = steps
        self._outgoing: dict[Holder, asyncio.Queue[instance_pb2.ReceiverMessage | None]] = {}

    def tell(self, source: Holder, message: ReceiverMessage) -> None:
        """To a source whose stream is gone this is nothing: it asks again when it has to know."""
        if outgoing := self._outgoing.get(source):
            outgoing.put_nowait(receiver_message_to_pb(message))

    async def serve(
        self, messages: AsyncIterator[instance_pb2.SourceMessage], context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> AsyncIterator[instance_pb2.ReceiverMessage]:
        hello = (await anext(messages)).hello
        if holder_from_pb(hello.receiver) != self._holder:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"this is {self._holder}")
        source = holder_from_pb(hello.source)
        if source in self._outgoing:  # it comes again before its old stream has ended here
            self._steps.post(partial(self._core.on_source_lost, source))
        outgoing: asyncio.Queue[instance_pb2.ReceiverMessage | None] = asyncio.Queue()
        self._outgoing[source] = outgoing
        listening = asyncio.create_task(self._listen(source, messages, outgoing))
        try:
            while (message := await outgoing.get()) is not None:
                yield message
        finally:
            listening.cancel()
            if self._outgoing.get(source) is outgoing:
                del self._outgoing[source]
                self._steps.post(partial(self._core.on_source_lost, source))

    async def _listen(
        self,
        source: Holder,
        messages: AsyncIterator[instance_pb2.SourceMessage],
        outgoing: "asyncio.Queue[instance_pb2.ReceiverMessage | None]",
    ) -> None:
        clock = asyncio.get_running_loop().time
        try:
            async for message in messages:
                if (said := source_message_from_pb(message, clock())) is not None:
                    self._steps.post(partial(self._core.on_source_message, source, said, clock()))
        finally:
            outgoing.put_nowait(None)


class Receivers:
    """As a source: one stream per receiver, opened by the first message to it."""

    def __init__(self, holder: Holder, core: InstanceCore, steps: StepLoop) -> None:
        self._holder = holder
        self._core = core
        self._steps = steps
        self._outgoing: dict[Holder, asyncio.Queue[instance_pb2.SourceMessage]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(self, grant: Grant, message: SourceMessage) -> None:
        outgoing = self._outgoing.get(grant.receiver)
        if outgoing is None:
            outgoing = self._outgoing[grant.receiver] = asyncio.Queue()
            hello = instance_pb2.PeerHello(source=holder_to_pb(self._holder), receiver=holder_to_pb(grant.receiver))
            outgoing.put_nowait(instance_pb2.SourceMessage(hello=hello))
            task = asyncio.create_task(self._serve(grant, outgoing), name=f"peer {grant.receiver.instance}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        outgoing.put_nowait(source_message_to_pb(message, asyncio.get_running_loop().time()))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, grant: Grant, outgoing: "asyncio.Queue[instance_pb2.SourceMessage]") -> None:
        clock = asyncio.get_running_loop().time
        try:
            async with grpc.aio.insecure_channel(grant.address, options=CHANNEL_OPTIONS) as channel:
                stub = instance_pb2_grpc.InstanceStub(channel)  # type: ignore[no-untyped-call]
                async for message in stub.Handover(_drain(outgoing)):
                    if (said := receiver_message_from_pb(message)) is not None:
                        self._steps.post(partial(self._core.on_receiver_message, grant.receiver, said, clock()))
        except grpc.aio.AioRpcError:
            pass  # what it means is the handovers' to say
        finally:
            del self._outgoing[grant.receiver]
            self._steps.post(partial(self._core.on_receiver_lost, grant.receiver))


async def _drain(queue: "asyncio.Queue[instance_pb2.SourceMessage]") -> AsyncIterator[instance_pb2.SourceMessage]:
    while True:
        yield await queue.get()
