"""Streams of those who do not know the cluster's secret: ended before anything is acted on, and counted."""

import grpc
import pytest

from cluster.handshake import Caller, Unauthenticated
from cluster.pb import instance_pb2 as pb
from cluster.secret import SECRET_BYTES, ClusterSecret, Kind
from tests.unit.instance.served import (
    FRONT,
    SECRET,
    drops,
    front_hello,
    front_of,
    peer_hello,
    saying,
    served,
    serves,
    source_of,
    stub_for,
)

pytestmark = pytest.mark.unit

ANOTHER = ClusterSecret(b"x" * SECRET_BYTES)
STOP = pb.FrontMessage(stop=pb.Stop(request_id="r", epoch=pb.Epoch(term=1, n=1)))
RESERVE = pb.SourceMessage(reserve=pb.Reserve(request_id="r", epoch=pb.Epoch(term=1, n=1), num_tokens=3, lease_s=5.0))


async def refusal(call) -> grpc.StatusCode:
    """How a call ends that hears of nothing but a challenge."""
    try:
        async for message in call:
            assert message.WhichOneof("message") == "challenge"
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_a_front_and_a_source_that_know_the_secret_are_heard() -> None:
    async with served() as instance, front_of(instance) as front, source_of(instance) as source:
        source.say(RESERVE)
        await source.hear(lambda message: message.WhichOneof("message") == "reserved")
        assert await serves(front)
        assert await drops(front, 0, 0)


async def test_with_another_secret_neither_end_believes_the_other() -> None:
    async with served() as instance:
        with pytest.raises(Unauthenticated):
            async with front_of(instance, ANOTHER):
                pass
        with pytest.raises(Unauthenticated):
            async with source_of(instance, ANOTHER):
                pass


@pytest.mark.parametrize("second", [STOP, pb.FrontMessage(proof=pb.Proof(proof=b"p" * 32)), pb.FrontMessage()])
async def test_a_front_without_the_proof_is_turned_away(second: pb.FrontMessage) -> None:
    async with served() as instance, front_of(instance) as front, stub_for(instance) as stub:
        stranger = stub.Serve(saying(pb.FrontMessage(hello=front_hello(instance, "router/2", term=2)), second))
        assert await refusal(stranger) is grpc.StatusCode.UNAUTHENTICATED
        assert await drops(front, 1, 0)
        assert await serves(front), "its higher term must not have counted"


@pytest.mark.parametrize("second", [RESERVE, pb.SourceMessage(proof=pb.Proof(proof=b"p" * 32))])
async def test_a_source_without_the_proof_is_turned_away(second: pb.SourceMessage) -> None:
    async with served() as instance, front_of(instance) as front, stub_for(instance) as stub:
        stranger = stub.Handover(saying(pb.SourceMessage(hello=peer_hello(instance)), second))
        assert await refusal(stranger) is grpc.StatusCode.UNAUTHENTICATED
        told = await front.hear(lambda message: message.snapshot.num_unauthenticated == 1)
        assert told.snapshot.num_reserved_blocks == 0


@pytest.mark.parametrize("first", [STOP, pb.FrontMessage(), None])
async def test_a_stream_that_does_not_open_with_a_hello_is_ended(first: pb.FrontMessage | None) -> None:
    async with served() as instance, front_of(instance) as front, stub_for(instance) as stub:
        stranger = stub.Serve(saying(first) if first else iter([]))
        assert await refusal(stranger) is grpc.StatusCode.INVALID_ARGUMENT
        assert await drops(front, 1, 0)


async def test_a_stream_that_was_overheard_cannot_be_played_again() -> None:
    async with served() as instance, front_of(instance) as front, stub_for(instance) as stub:
        hello = peer_hello(instance)
        caller = Caller(SECRET, Kind.HANDOVER, hello)
        call = stub.Handover()
        await call.write(pb.SourceMessage(hello=hello))
        proof = pb.SourceMessage(proof=caller.answer((await call.read()).challenge))
        await call.write(proof)
        await call.write(RESERVE)
        assert (await call.read()).WhichOneof("message") == "reserved"
        call.cancel()
        again = stub.Handover(saying(pb.SourceMessage(hello=hello), proof))
        assert await refusal(again) is grpc.StatusCode.UNAUTHENTICATED
        assert await drops(front, 1, 0)


async def test_who_proves_itself_but_means_another_life_is_told_so_and_is_no_stranger() -> None:
    async with served() as instance, front_of(instance) as front, stub_for(instance) as stub:
        hello = front_hello(instance)
        hello.instance.incarnation = 1
        caller = Caller(SECRET, Kind.SERVE, hello)
        call = stub.Serve()
        await call.write(pb.FrontMessage(hello=hello))
        await call.write(pb.FrontMessage(proof=caller.answer((await call.read()).challenge)))
        assert await call.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert await serves(front)
        assert await drops(front, 0, 0)


async def test_neither_the_secret_nor_a_proof_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with served() as instance, front_of(instance) as front, stub_for(instance) as stub:
        proof = pb.FrontMessage(proof=pb.Proof(proof=b"do not tell"))
        await refusal(stub.Serve(saying(pb.FrontMessage(hello=front_hello(instance)), proof)))
        await serves(front)
    assert "turned away" in caplog.text
    assert "do not tell" not in caplog.text
    for shown in (SECRET.value.hex(), repr(SECRET.value), repr(SECRET.value)[2:-1]):
        assert shown not in caplog.text
    assert FRONT not in caplog.text
