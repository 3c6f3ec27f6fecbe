"""The streams from fronts: what each is told, and that each is heard."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from cluster.drops import Drops
from cluster.instance.config import InstanceConfig
from cluster.instance.core import HEARD_MID_STEP, InstanceCore
from cluster.instance.step_loop import StepLoop
from cluster.messages import FrontMessage, Holder, InstanceMessage
from cluster.pb import instance_pb2
from cluster.secret import Kind
from cluster.snapshot import InstanceSnapshot, LinkSnapshot
from cluster.wire.front_messages import instance_message_to_pb
from cluster.wire.greeting import Doorkeeper
from cluster.wire.snapshots import snapshot_to_pb
from cluster.wire.soundness import read_front_message
from cluster.wire.values import holder_from_pb

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Stream:
    """One front's. None in the queue is its end."""

    front: str
    term: int
    outgoing: asyncio.Queue[instance_pb2.InstanceMessage | None] = field(default_factory=asyncio.Queue)


class Fronts:
    """Lives in the event loop."""

    def __init__(
        self,
        holder: Holder,
        config: InstanceConfig,
        core: InstanceCore,
        steps: StepLoop,
        *,
        drops: Drops,
        vocab_size: int,
    ) -> None:
        self._holder = holder
        self._config = config
        self._core = core
        self._steps = steps
        self._drops = drops
        self._vocab_size = vocab_size
        self._door = Doorkeeper(config.secret, Kind.SERVE, drops)
        self._streams: dict[str, _Stream] = {}
        self._highest_term = 0

    @property
    def names(self) -> list[str]:
        return list(self._streams)

    def tell(self, front: str, message: InstanceMessage) -> None:
        """To one that is not here this is nothing: when it comes back it hears of all that is held for it."""
        if stream := self._streams.get(front):
            stream.outgoing.put_nowait(instance_message_to_pb(message, asyncio.get_running_loop().time()))

    def report(
        self, snapshot: InstanceSnapshot, num_dispatches: dict[str, int], links: tuple[LinkSnapshot, ...]
    ) -> None:
        """To every front, with the number of its own dispatches that are in it.

        One that joined within a step, of which the core does not know before its end, hears that this instance lives.
        """
        for front, stream in self._streams.items():
            if front not in num_dispatches:
                stream.outgoing.put_nowait(instance_pb2.InstanceMessage(heartbeat=instance_pb2.Heartbeat()))
            else:
                seen = replace(
                    snapshot,
                    links=links,
                    num_dispatches_seen=num_dispatches[front],
                    num_unauthenticated=self._drops.num_unauthenticated,
                    num_malformed=self._drops.num_malformed,
                    num_checksum_failures=self._drops.num_checksum_failures,
                )
                stream.outgoing.put_nowait(instance_pb2.InstanceMessage(snapshot=snapshot_to_pb(seen)))

    async def serve(
        self, messages: AsyncIterator[instance_pb2.FrontMessage], context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> AsyncIterator[instance_pb2.InstanceMessage]:
        """One front's stream, from its hello until either side ends it."""
        hello = await self._door.hear_hello(messages, context)
        called = self._door.challenge(hello)
        yield instance_pb2.InstanceMessage(challenge=called.challenge())
        await self._door.check_proof(called, messages, context)
        stream = await self._enter(hello, context)
        listening = asyncio.create_task(self._listen(stream, messages))
        try:
            yield instance_pb2.InstanceMessage(hello=instance_pb2.InstanceHello())
            while (message := await stream.outgoing.get()) is not None:
                yield message
        finally:
            listening.cancel()
            self._leave(stream)

    async def _enter(self, hello: instance_pb2.FrontHello, context: "grpc.aio.ServicerContext[Any, Any]") -> _Stream:
        if not hello.front:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the front has no name")
        if holder_from_pb(hello.instance) != self._holder:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"this is {self._holder}")
        if hello.term < self._highest_term:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"term {self._highest_term} has begun")
        self._highest_term = hello.term
        for old in [old for old in self._streams.values() if old.term < hello.term or old.front == hello.front]:
            self._leave(old)
        stream = self._streams[hello.front] = _Stream(hello.front, hello.term)
        self._steps.post(partial(self._core.on_front_joined, hello.front))
        return stream

    def _leave(self, stream: _Stream) -> None:
        """Once for each stream, whoever notices first: a reader that stands still must not keep what it asked for."""
        stream.outgoing.put_nowait(None)
        if self._streams.get(stream.front) is stream:
            del self._streams[stream.front]
            self._steps.post(partial(self._core.on_front_lost, stream.front))

    async def _listen(self, stream: _Stream, messages: AsyncIterator[instance_pb2.FrontMessage]) -> None:
        """Until the front has been silent for too long, or its stream is over."""
        clock = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(self._config.front_timeout_s) as silence:
                async for message in messages:
                    silence.reschedule(clock() + self._config.front_timeout_s)
                    if (said := self._read(stream, message, clock())) is not None:
                        event = partial(self._core.on_front_message, stream.front, said, clock())
                        self._steps.post(event, mid_step=isinstance(said, HEARD_MID_STEP))
        except TimeoutError:
            pass
        except DecodeError as error:  # bytes that are no message: gRPC reads no further
            self._drop(stream, error)
        finally:
            self._leave(stream)

    def _read(self, stream: _Stream, message: instance_pb2.FrontMessage, now_s: float) -> FrontMessage | None:
        try:
            return read_front_message(message, now_s, front=stream.front, vocab_size=self._vocab_size)
        except ValueError as error:
            self._drop(stream, error)
            return None

    def _drop(self, stream: _Stream, error: Exception) -> None:
        self._drops.on_malformed()
        log.warning("a message of %s is dropped: %s", stream.front, error)
