"""The stream between the router and an instance, whose end here does nothing but listen."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest

from cluster.drops import Drops
from cluster.handshake import draw_secret
from cluster.instance.config import InstanceInfo
from cluster.messages import Epoch, Held, Holder, InstanceMessage, Stop
from cluster.pb import instance_pb2 as pb
from cluster.pb import instance_pb2_grpc
from cluster.role import InstanceRole
from cluster.secret import Kind
from cluster.snapshot import InstanceSnapshot
from cluster.wire.greeting import Doorkeeper
from router.connection import InstanceConnection
from tests.unit.router.test_router import make_info

pytestmark = pytest.mark.unit

SECRET = draw_secret()
NUM_STOPS = 100


class Listener(instance_pb2_grpc.InstanceServicer):
    """Greets a front, and keeps what it says; `ends`: it ends the stream when the front does."""

    def __init__(self, ends: bool = True) -> None:
        self.heard: list[str] = []
        self.is_left = asyncio.Event()
        self._ends = ends
        self._door = Doorkeeper(SECRET, Kind.SERVE, Drops())

    async def Serve(self, messages: Any, context: Any) -> AsyncIterator[pb.InstanceMessage]:
        try:
            called = self._door.challenge(await self._door.hear_hello(messages, context))
            yield pb.InstanceMessage(challenge=called.challenge())
            await self._door.check_proof(called, messages, context)
            yield pb.InstanceMessage(hello=pb.InstanceHello())
            async for message in messages:
                if message.WhichOneof("message") == "stop":
                    self.heard.append(message.stop.request_id)
            if not self._ends:
                await asyncio.Event().wait()
        finally:
            self.is_left.set()


class Events:
    """What the router is told."""

    def __init__(self) -> None:
        self.has_joined = asyncio.Event()
        self.losses: list[str] = []

    def on_joined(self, info: InstanceInfo) -> None:
        self.has_joined.set()

    def on_holdings(self, holder: Holder, held: tuple[Held, ...]) -> None: ...

    def on_message(self, holder: Holder, message: InstanceMessage) -> None: ...

    def on_snapshot(self, snapshot: InstanceSnapshot) -> None: ...

    def on_lost(self, holder: Holder, reason: str) -> None:
        self.losses.append(reason)


@asynccontextmanager
async def connected(listener: Listener, events: Events, suspect_after_s: float) -> AsyncIterator[InstanceConnection]:
    server = grpc.aio.server()
    instance_pb2_grpc.add_InstanceServicer_to_server(listener, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    info = replace(make_info("m0", InstanceRole.MIXED), address=f"127.0.0.1:{port}")
    connection = InstanceConnection(info, "router/1", 1, events, secret=SECRET, suspect_after_s=suspect_after_s)
    try:
        await asyncio.wait_for(events.has_joined.wait(), 20.0)
        yield connection
    finally:
        await server.stop(None)


@pytest.mark.parametrize(
    ("ends", "suspect_after_s"), [(True, 20.0), (False, 4.0)], ids=["", "and the instance goes on"]
)
async def test_what_was_sent_before_the_end_arrives(ends: bool, suspect_after_s: float) -> None:
    """One that goes on is left when it has had as long as it may be silent."""
    listener, events = Listener(ends), Events()
    async with connected(listener, events, suspect_after_s) as connection:
        for index in range(NUM_STOPS):
            connection.send(Stop(request_id=f"r{index}", epoch=Epoch(1, index)))
        await connection.close()
        connection.send(Stop(request_id="late", epoch=Epoch(1, 0)))
        assert listener.heard == [f"r{index}" for index in range(NUM_STOPS)]
        assert events.losses == []
        await asyncio.wait_for(listener.is_left.wait(), 20.0)
