"""A real instance, streams and threads and sockets included, around a model without tensors."""

import asyncio
import math
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from cluster.engine.engine import Engine
from cluster.engine.scheduler_output import SampledToken, SchedulerOutput
from cluster.handshake import Caller, draw_secret
from cluster.instance.config import InstanceConfig
from cluster.instance.instance import Instance
from cluster.instance.loading import LoadedEngine
from cluster.links.kv_region import KvRegion
from cluster.links.shared_region import SharedRegion
from cluster.pb import instance_pb2 as pb
from cluster.pb import instance_pb2_grpc
from cluster.role import InstanceRole, RolePolicy
from cluster.secret import ClusterSecret, Kind
from cluster.wire.greeting import answer_challenge, speak
from deploy.roles import ROLE_POLICIES
from tests.unit.engine.factories import VOCAB_SIZE, FakeRunner, make_scheduler

NUM_BLOCKS = 64
RECORD_BYTES = 64
FRONT = "router/1"
SECRET = draw_secret()
PATIENCE_S = 20.0


class StrictRunner(FakeRunner):
    """Ends the instance, as a model's does, for what it cannot compute."""

    def run(self, output: SchedulerOutput) -> list[SampledToken]:
        for entry in output.scheduled:
            sequence, params = entry.sequence, entry.sequence.sampling_params
            if max(sequence.token_ids(entry.start, entry.start + entry.num_tokens)) >= VOCAB_SIZE:
                raise IndexError("a token id beyond the embedding")
            if not (0.0 <= params.temperature < math.inf and 0.0 < params.top_p <= 1.0 and params.top_k >= 0):
                raise ValueError(f"no distribution to draw from: {params}")
            if not 0 <= (params.logprobs or 0) <= VOCAB_SIZE or len(sequence.logprobs) > sequence.num_output_tokens:
                raise ValueError("logprobs that are not there")
        return super().run(output)


def load_fake(config: InstanceConfig, policy: RolePolicy, progress: Callable[[str], None]) -> LoadedEngine:
    scheduler = make_scheduler(NUM_BLOCKS, max_num_seqs=8, max_num_batched_tokens=64)
    memory = SharedRegion.create(NUM_BLOCKS * RECORD_BYTES)
    return LoadedEngine(
        engine=Engine(scheduler, StrictRunner(scheduler.block_manager)),
        memory=memory,
        region=KvRegion(memory.buffer, RECORD_BYTES, memory.path),
        vocab_size=VOCAB_SIZE,
        max_model_len=1000,
        saturation_tokens=16,
    )


@asynccontextmanager
async def served(secret: ClusterSecret = SECRET, **options: Any) -> AsyncIterator[Instance]:
    with tempfile.TemporaryDirectory() as checkpoint:
        (Path(checkpoint) / "config.json").write_text("{}")
        config = InstanceConfig(
            name="me",
            role=InstanceRole.MIXED,
            model_path=checkpoint,
            secret=secret,
            snapshot_interval_s=0.01,
            front_timeout_s=60.0,
            **options,
        )
        loaded: list[LoadedEngine] = []
        instance = Instance(config, ROLE_POLICIES, load=lambda *asked: loaded.append(load_fake(*asked)) or loaded[0])
        await instance.start()
    try:
        yield instance
    finally:
        await instance.stop()
    loaded[0].engine.scheduler.check_integrity()


class Speaker:
    """One stream to an instance, its greeting over: `outgoing` is what it says, `messages` what it hears."""

    def __init__(self, messages: AsyncIterator[Any], outgoing: "asyncio.Queue[Any]") -> None:
        self.messages = messages
        self.outgoing = outgoing

    def say(self, *messages: Any) -> None:
        for message in messages:
            self.outgoing.put_nowait(message)

    async def hear(self, holds: Callable[[Any], bool]) -> Any:
        """The first of which that is true. Raises TimeoutError."""
        async with asyncio.timeout(PATIENCE_S):
            async for message in self.messages:
                if holds(message):
                    return message
        raise AssertionError("the stream has ended")


def front_hello(instance: Instance, front: str = FRONT, term: int = 1) -> pb.FrontHello:
    me = pb.Holder(instance=instance.holder.instance, incarnation=instance.holder.incarnation)
    return pb.FrontHello(front=front, term=term, instance=me)


def peer_hello(instance: Instance) -> pb.PeerHello:
    me = pb.Holder(instance=instance.holder.instance, incarnation=instance.holder.incarnation)
    return pb.PeerHello(source=pb.Holder(instance="source", incarnation=1), receiver=me)


@asynccontextmanager
async def stub_for(instance: Instance) -> AsyncIterator[instance_pb2_grpc.InstanceStub]:
    async with grpc.aio.insecure_channel(instance.info.address) as channel:
        yield instance_pb2_grpc.InstanceStub(channel)


@asynccontextmanager
async def front_of(instance: Instance, secret: ClusterSecret = SECRET) -> AsyncIterator[Speaker]:
    async with stub_for(instance) as stub:
        speaker = await greet(stub.Serve, pb.FrontMessage, Kind.SERVE, front_hello(instance), secret)
        await speaker.hear(lambda message: message.WhichOneof("message") == "hello")
        yield speaker


@asynccontextmanager
async def source_of(instance: Instance, secret: ClusterSecret = SECRET) -> AsyncIterator[Speaker]:
    async with stub_for(instance) as stub:
        yield await greet(stub.Handover, pb.SourceMessage, Kind.HANDOVER, peer_hello(instance), secret)


async def greet(method: Any, message: Any, kind: Kind, hello: Any, secret: ClusterSecret) -> Speaker:
    """Both ends have shown that they know the secret, or it raises Unauthenticated."""
    caller = Caller(secret, kind, hello)
    outgoing: asyncio.Queue[Any] = asyncio.Queue()
    proof: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    messages = aiter(method(speak(message(hello=hello), proof, outgoing)))
    proof.set_result(message(proof=await answer_challenge(messages, caller)))
    return Speaker(messages, outgoing)


async def serves(front: Speaker, request_id: str = "sound") -> bool:
    """Whether a request with nothing wrong about it runs to its end."""
    state = pb.SequenceState(
        request_id=request_id,
        front=FRONT,
        prompt_token_ids=[1, 2, 3],
        sampling_params=pb.EngineSamplingParams(top_p=1.0, max_tokens=3),
        priority=2**31 - 1,
    )
    front.say(pb.FrontMessage(dispatch=pb.Dispatch(state=state, epoch=pb.Epoch(term=9, n=9))))
    await front.hear(
        lambda message: any(it.request_id == request_id and it.finish_reason for it in message.step.updates)
    )
    return True


async def drops(front: Speaker, num_unauthenticated: int, num_malformed: int) -> bool:
    """Whether the instance comes to report these, and no more."""
    counts = (num_unauthenticated, num_malformed)
    told = await front.hear(
        lambda message: (message.snapshot.num_unauthenticated, message.snapshot.num_malformed) >= counts
    )
    return (told.snapshot.num_unauthenticated, told.snapshot.num_malformed) == counts


async def saying(*messages: Any) -> AsyncIterator[Any]:
    """These, and the stream stays open: gRPC reports a word too many to one that ends it as an error of its own."""
    for message in messages:
        yield message
    await asyncio.Event().wait()
