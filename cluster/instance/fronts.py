"""The streams from fronts: what each is told, and that each is heard."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any

import grpc

from cluster.instance.config import InstanceConfig
from cluster.instance.core import InstanceCore
from cluster.instance.step_loop import StepLoop
from cluster.messages import Holder, InstanceMessage
from cluster.pb import instance_pb2
from cluster.snapshot import InstanceSnapshot, LinkSnapshot
from cluster.wire.front_messages import front_message_from_pb, instance_message_to_pb
from cluster.wire.snapshots import snapshot_to_pb
from cluster.wire.values import holder_from_pb

Outgoing = asyncio.Queue[instance_pb2.InstanceMessage]


class Fronts:
    """Lives in the event loop. `hello` is what a front is answered with."""

    def __init__(
        self,
        holder: Holder,
        config: InstanceConfig,
        core: InstanceCore,
        steps: StepLoop,
        hello: instance_pb2.InstanceHello,
    ) -> None:
        self._holder = holder
        self._config = config
        self._core = core
        self._steps = steps
        self._hello = hello
        self._outgoing: dict[str, Outgoing] = {}
        self._highest_term = 0

    def tell(self, front: str, message: InstanceMessage) -> None:
        if outgoing := self._outgoing.get(front):
            outgoing.put_nowait(instance_message_to_pb(message))
        else:  # it left between the step and now, or before a baton came for it: nobody will ever read this
            self._steps.post(partial(self._core.on_front_lost, front))

    def report(self, snapshots: dict[str, InstanceSnapshot], links: tuple[LinkSnapshot, ...]) -> None:
        """To every front, the last that was seen of its instance."""
        for front, outgoing in self._outgoing.items():
            if snapshot := snapshots.get(front):
                snapshot_pb = snapshot_to_pb(replace(snapshot, links=links))
                outgoing.put_nowait(instance_pb2.InstanceMessage(snapshot=snapshot_pb))

    @property
    def names(self) -> list[str]:
        return list(self._outgoing)

    async def serve(
        self, messages: AsyncIterator[instance_pb2.FrontMessage], context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> AsyncIterator[instance_pb2.InstanceMessage]:
        """One front's stream, from its hello until either side ends it."""
        front = await self._greet(await anext(messages), context)
        if front in self._outgoing:  # it comes again before its old stream has ended here
            self._steps.post(partial(self._core.on_front_lost, front))
        outgoing: asyncio.Queue[instance_pb2.InstanceMessage | None] = asyncio.Queue()
        self._outgoing[front] = outgoing  # type: ignore[assignment]  # None only ever comes from `listen`
        listening = asyncio.create_task(self._listen(front, messages, outgoing))
        try:
            yield instance_pb2.InstanceMessage(hello=self._hello)
            while (message := await outgoing.get()) is not None:
                yield message
        finally:
            listening.cancel()
            if self._outgoing.get(front) is outgoing:
                del self._outgoing[front]
                self._steps.post(partial(self._core.on_front_lost, front))

    async def _greet(self, first: instance_pb2.FrontMessage, context: "grpc.aio.ServicerContext[Any, Any]") -> str:
        hello = first.hello
        if not hello.front:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message must be a hello")
        if holder_from_pb(hello.instance) != self._holder:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"this is {self._holder}")
        if hello.term < self._highest_term:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"term {self._highest_term} has begun")
        self._highest_term = hello.term
        return hello.front

    async def _listen(
        self,
        front: str,
        messages: AsyncIterator[instance_pb2.FrontMessage],
        outgoing: "asyncio.Queue[instance_pb2.InstanceMessage | None]",
    ) -> None:
        """Until the front has been silent for too long, or its stream is over."""
        clock = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(self._config.front_timeout_s) as silence:
                async for message in messages:
                    silence.reschedule(clock() + self._config.front_timeout_s)
                    if (said := front_message_from_pb(message, clock())) is not None:
                        self._steps.post(partial(self._core.on_front_message, front, said, clock()))
        except TimeoutError:
            pass
        finally:
            outgoing.put_nowait(None)
