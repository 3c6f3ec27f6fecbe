"""The control streams of handovers: those that sources open to us, and those that we open to receivers."""

import asyncio
import logging
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from cluster.drops import Drops
from cluster.handshake import Caller, Unauthenticated
from cluster.instance import handover_steps
from cluster.instance.core import InstanceCore
from cluster.instance.step_loop import StepLoop
from cluster.messages import Grant, Holder, ReceiverMessage, SourceMessage
from cluster.pb import instance_pb2, instance_pb2_grpc
from cluster.secret import ClusterSecret, Kind
from cluster.wire.channel import CHANNEL_OPTIONS
from cluster.wire.greeting import Doorkeeper, answer_challenge, fall_silent, speak
from cluster.wire.peer_messages import receiver_message_to_pb, source_message_to_pb
from cluster.wire.soundness import read_receiver_message, read_source_message
from cluster.wire.values import holder_from_pb, holder_to_pb

# A source renews its leases from its event loop, however long its steps take.
_RENEW_S = 0.5
_SILENT_AFTER_S = 5.0

log = logging.getLogger(__name__)


class Sources:
    """As a receiver: one stream per source."""

    def __init__(
        self,
        holder: Holder,
        secret: ClusterSecret,
        core: InstanceCore,
        steps: StepLoop,
        *,
        drops: Drops,
        vocab_size: int,
    ) -> None:
        self._holder = holder
        self._core = core
        self._steps = steps
        self._drops = drops
        self._vocab_size = vocab_size
        self._door = Doorkeeper(secret, Kind.HANDOVER, drops)
        self._outgoing: dict[Holder, asyncio.Queue[instance_pb2.ReceiverMessage | None]] = {}

    def tell(self, source: Holder, message: ReceiverMessage) -> None:
        """To a source whose stream is gone this is nothing: it asks again when it has to know."""
        if outgoing := self._outgoing.get(source):
            outgoing.put_nowait(receiver_message_to_pb(message))

    async def serve(
        self, messages: AsyncIterator[instance_pb2.SourceMessage], context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> AsyncIterator[instance_pb2.ReceiverMessage]:
        hello = await self._door.hear_hello(messages, context)
        called = self._door.challenge(hello)
        yield instance_pb2.ReceiverMessage(challenge=called.challenge())
        await self._door.check_proof(called, messages, context)
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
        """Until the source, which renews its leases all the time, is silent for too long, or its stream is over."""
        clock = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(_SILENT_AFTER_S) as silence:
                async for message in messages:
                    silence.reschedule(clock() + _SILENT_AFTER_S)
                    if (said := self._read(source, message, clock())) is not None:
                        self._steps.post(partial(handover_steps.hearing, said), mid_step=True)
                        self._steps.post(partial(self._core.on_source_message, source, said, clock()), mid_step=True)
        except TimeoutError:
            pass
        except DecodeError as error:  # bytes that are no message: gRPC reads no further
            self._drop(source, error)
        finally:
            outgoing.put_nowait(None)

    def _read(self, source: Holder, message: instance_pb2.SourceMessage, now_s: float) -> SourceMessage | None:
        try:
            return read_source_message(message, now_s, vocab_size=self._vocab_size)
        except ValueError as error:
            self._drop(source, error)
            return None

    def _drop(self, source: Holder, error: Exception) -> None:
        self._drops.on_malformed()
        log.warning("a message of %s is dropped: %s", source.instance, error)


class Receivers:
    """As a source: one stream per receiver, opened by the first message to it."""

    def __init__(
        self, holder: Holder, secret: ClusterSecret, core: InstanceCore, steps: StepLoop, *, drops: Drops
    ) -> None:
        self._holder = holder
        self._secret = secret
        self._drops = drops
        self._core = core
        self._steps = steps
        self._outgoing: dict[Holder, asyncio.Queue[instance_pb2.SourceMessage | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(self, grant: Grant, message: SourceMessage) -> None:
        outgoing = self._outgoing.get(grant.receiver)
        if outgoing is None:
            outgoing = self._outgoing[grant.receiver] = asyncio.Queue()
            task = asyncio.create_task(self._serve(grant, outgoing), name=f"peer {grant.receiver.instance}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        outgoing.put_nowait(source_message_to_pb(message, asyncio.get_running_loop().time()))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, grant: Grant, outgoing: "asyncio.Queue[instance_pb2.SourceMessage | None]") -> None:
        clock = asyncio.get_running_loop().time
        renewing = asyncio.create_task(_renew(outgoing))
        proof: asyncio.Future[instance_pb2.SourceMessage | None] = asyncio.get_running_loop().create_future()
        try:
            async with grpc.aio.insecure_channel(grant.address, options=CHANNEL_OPTIONS) as channel:
                stub = instance_pb2_grpc.InstanceStub(channel)  # type: ignore[no-untyped-call]
                async for message in await self._greet(stub, grant, proof, outgoing):
                    if (said := self._read(grant, message)) is not None:
                        self._steps.post(partial(handover_steps.hearing, said), mid_step=True)
                        self._steps.post(
                            partial(self._core.on_receiver_message, grant.receiver, said, clock()), mid_step=True
                        )
        except grpc.aio.AioRpcError:
            pass  # what it means is the handovers' to say
        except (Unauthenticated, TimeoutError) as error:
            log.warning("nothing is said to %s at %s: %s", grant.receiver.instance, grant.address, error)
        finally:
            renewing.cancel()
            fall_silent(proof, outgoing)
            del self._outgoing[grant.receiver]
            self._steps.post(partial(self._core.on_receiver_lost, grant.receiver, clock()))

    async def _greet(
        self,
        stub: Any,
        grant: Grant,
        proof: "asyncio.Future[instance_pb2.SourceMessage | None]",
        outgoing: "asyncio.Queue[instance_pb2.SourceMessage | None]",
    ) -> AsyncIterator[instance_pb2.ReceiverMessage]:
        """What the receiver says, once each has shown the other that it belongs to the cluster."""
        hello = instance_pb2.PeerHello(source=holder_to_pb(self._holder), receiver=holder_to_pb(grant.receiver))
        caller = Caller(self._secret, Kind.HANDOVER, hello)
        messages: AsyncIterator[instance_pb2.ReceiverMessage] = aiter(
            stub.Handover(speak(instance_pb2.SourceMessage(hello=hello), proof, outgoing))
        )
        async with asyncio.timeout(_SILENT_AFTER_S):
            answer = await answer_challenge(messages, caller)
        proof.set_result(instance_pb2.SourceMessage(proof=answer))
        return messages

    def _read(self, grant: Grant, message: instance_pb2.ReceiverMessage) -> ReceiverMessage | None:
        try:
            return read_receiver_message(message)
        except ValueError as error:
            self._drops.on_malformed()
            log.warning("a message of %s is dropped: %s", grant.receiver.instance, error)
            return None


async def _renew(outgoing: "asyncio.Queue[instance_pb2.SourceMessage | None]") -> None:
    """Keeps the leases of everything that was reserved over this stream."""
    while True:
        await asyncio.sleep(_RENEW_S)
        outgoing.put_nowait(instance_pb2.SourceMessage(renew=instance_pb2.Renew()))
