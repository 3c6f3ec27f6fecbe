"""The stream between this front and one instance: made, watched, and made again until it is closed."""

import asyncio
import logging
from typing import Any, Protocol

import grpc

from cluster.handshake import Caller, Unauthenticated
from cluster.instance.config import InstanceInfo
from cluster.messages import FrontMessage, Held, Holder, Holdings, InstanceMessage
from cluster.pb import instance_pb2, instance_pb2_grpc
from cluster.secret import ClusterSecret, Kind
from cluster.snapshot import InstanceSnapshot
from cluster.wire.channel import CHANNEL_OPTIONS
from cluster.wire.front_messages import front_message_to_pb, instance_message_from_pb
from cluster.wire.greeting import answer_challenge, fall_silent, speak
from cluster.wire.snapshots import snapshot_from_pb
from cluster.wire.values import holder_to_pb

_RETRY_S = 0.2

log = logging.getLogger(__name__)


class ConnectionEvents(Protocol):
    def on_joined(self, info: InstanceInfo) -> None: ...

    def on_holdings(self, holder: Holder, held: tuple[Held, ...]) -> None: ...

    def on_message(self, holder: Holder, message: InstanceMessage) -> None: ...

    def on_snapshot(self, snapshot: InstanceSnapshot) -> None: ...

    def on_lost(self, holder: Holder, reason: str) -> None: ...


class InstanceConnection:
    """Says `on_joined` when the instance has answered, and `on_lost` when it breaks off or is silent for too long.

    The first word of one that has joined is `on_holdings`.
    """

    def __init__(
        self,
        info: InstanceInfo,
        front: str,
        term: int,
        events: ConnectionEvents,
        *,
        secret: ClusterSecret,
        suspect_after_s: float,
    ) -> None:
        self.info = info
        self.holder = Holder(info.name, info.incarnation)
        self._front, self._term = front, term
        self._events = events
        self._secret = secret
        self._suspect_after_s = suspect_after_s
        self._outgoing: asyncio.Queue[instance_pb2.FrontMessage | None] | None = None
        self._last_reason = ""
        self._is_closed = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"connection to {info.name}")

    def send(self, message: FrontMessage) -> None:
        """To an instance that is lost this is nothing: it has let go of everything by itself."""
        if self._outgoing is not None:
            now_s = asyncio.get_running_loop().time()
            self._outgoing.put_nowait(front_message_to_pb(message, now_s))

    async def close(self) -> None:
        """What was sent before arrives, where somebody listens; nothing that comes from now on is an event.

        An instance that takes as long for it as one that is lost hears of the end only.
        """
        self._is_closed.set()
        if self._outgoing is not None:
            self._outgoing.put_nowait(None)
            self._outgoing = None
            await asyncio.wait((self._task,), timeout=self._suspect_after_s)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        async with grpc.aio.insecure_channel(self.info.address, options=CHANNEL_OPTIONS) as channel:
            while not self._is_closed.is_set():
                reason = await self._serve(instance_pb2_grpc.InstanceStub(channel))  # type: ignore[no-untyped-call]
                if self._is_closed.is_set():
                    return
                if reason != self._last_reason:
                    self._last_reason = reason
                    log.warning("instance %s cannot be spoken to: %s", self.info.name, reason)
                if self._outgoing is not None:
                    self._outgoing = None
                    self._events.on_lost(self.holder, reason)
                await self._pause()

    async def _pause(self) -> None:
        try:
            await asyncio.wait_for(self._is_closed.wait(), _RETRY_S)
        except TimeoutError:
            return

    async def _serve(self, stub: Any) -> str:
        """One stream from hello to end; returns why it ended."""
        outgoing: asyncio.Queue[instance_pb2.FrontMessage | None] = asyncio.Queue()
        proof: asyncio.Future[instance_pb2.FrontMessage | None] = asyncio.get_running_loop().create_future()
        hello = instance_pb2.FrontHello(front=self._front, term=self._term, instance=holder_to_pb(self.holder))
        caller = Caller(self._secret, Kind.SERVE, hello)
        beating = asyncio.create_task(self._beat(outgoing))
        call = stub.Serve(speak(instance_pb2.FrontMessage(hello=hello), proof, outgoing))
        clock = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(self._suspect_after_s) as silence:
                messages = aiter(call)
                proof.set_result(instance_pb2.FrontMessage(proof=await answer_challenge(messages, caller)))
                async for message in messages:
                    silence.reschedule(clock() + self._suspect_after_s)
                    if not self._is_closed.is_set():
                        self._take(message, outgoing)
            return "it ended the stream"
        except TimeoutError:
            return f"silent for {self._suspect_after_s} s"
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        except Unauthenticated as error:
            return str(error)
        except Exception as error:  # whatever it said that we cannot take: better lost than deaf
            log.exception("instance %s", self.info.name)
            return f"{type(error).__name__}: {error}"
        finally:
            beating.cancel()
            call.cancel()
            fall_silent(proof, outgoing)

    async def _beat(self, outgoing: asyncio.Queue[instance_pb2.FrontMessage | None]) -> None:
        """So that the instance knows of us while there is nothing to say."""
        while True:
            await asyncio.sleep(self._suspect_after_s / 4)
            outgoing.put_nowait(instance_pb2.FrontMessage(heartbeat=instance_pb2.Heartbeat()))

    def _take(
        self, message: instance_pb2.InstanceMessage, outgoing: asyncio.Queue[instance_pb2.FrontMessage | None]
    ) -> None:
        kind = message.WhichOneof("message")
        if kind == "hello":
            self._outgoing = outgoing
            self._events.on_joined(self.info)
        elif kind == "snapshot":
            self._events.on_snapshot(snapshot_from_pb(message.snapshot))
        elif (said := instance_message_from_pb(message, asyncio.get_running_loop().time())) is not None:
            if isinstance(said, Holdings):
                self._events.on_holdings(self.holder, said.held)
            else:
                self._events.on_message(self.holder, said)
