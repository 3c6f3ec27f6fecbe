"""What an instance says while a step takes long, and what ends one that takes too long."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from cluster.instance.config import EngineConfig
from cluster.instance.instance import Instance
from cluster.pb import instance_pb2 as pb
from cluster.pb import instance_pb2_grpc
from cluster.secret import Kind
from tests.unit.instance.served import FRONT, PATIENCE_S, SECRET, StrictRunner, front_hello, greet, served

pytestmark = pytest.mark.unit

LATER, LATER_TERM = "router/2", 2


@asynccontextmanager
async def in_a_step(monkeypatch: pytest.MonkeyPatch, **options) -> AsyncIterator[tuple[Instance, threading.Event]]:
    """An instance that stands in a step until the event is set, and the front that asked for the step is there."""
    reached, done = threading.Event(), threading.Event()
    compute = StrictRunner.run

    def run(self, output):
        reached.set()
        assert done.wait(PATIENCE_S)
        return compute(self, output)

    monkeypatch.setattr(StrictRunner, "run", run)
    async with served(**options) as instance, grpc.aio.insecure_channel(instance.info.address) as channel:
        stub = instance_pb2_grpc.InstanceStub(channel)
        front = await greet(stub.Serve, pb.FrontMessage, Kind.SERVE, front_hello(instance), SECRET)
        state = pb.SequenceState(
            request_id="r",
            front=FRONT,
            prompt_token_ids=[1, 2, 3],
            sampling_params=pb.EngineSamplingParams(top_p=1.0, max_tokens=3),
        )
        front.say(pb.FrontMessage(dispatch=pb.Dispatch(state=state, epoch=pb.Epoch(term=1, n=1))))
        assert await asyncio.to_thread(reached.wait, PATIENCE_S)
        try:
            yield instance, done
        finally:
            done.set()


async def test_a_front_that_joins_within_a_step_hears_that_the_instance_lives(monkeypatch) -> None:
    async with in_a_step(monkeypatch) as (instance, done), grpc.aio.insecure_channel(instance.info.address) as channel:
        stub = instance_pb2_grpc.InstanceStub(channel)
        hello = front_hello(instance, LATER, LATER_TERM)
        front = await greet(stub.Serve, pb.FrontMessage, Kind.SERVE, hello, SECRET)
        heard = [(await anext(front.messages)).WhichOneof("message") for _ in range(4)]
        assert heard == ["hello", "heartbeat", "heartbeat", "heartbeat"]
        done.set()
        told = await front.hear(lambda message: message.WhichOneof("message") != "heartbeat")
        assert [held.state.request_id for held in told.holdings.held] == ["r"]
        await front.hear(lambda message: message.WhichOneof("message") == "snapshot")


async def test_a_step_that_does_not_end_in_time_is_the_end_of_the_instance(monkeypatch) -> None:
    async with in_a_step(monkeypatch, engine=EngineConfig(stuck_after_s=1.0)) as (instance, _):
        assert not instance.failed.is_set()
        async with asyncio.timeout(PATIENCE_S):
            await instance.failed.wait()
        assert instance.progress == "failed: no step has ended for 1 s"
