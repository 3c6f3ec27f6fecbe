"""The gRPC front over a real socket: its stream, its errors and their details, health, reflection, the client."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from cluster.engine.sequence import FinishReason
from cluster.pb import baton_pb2
from router.client import BatonClient
from router.errors import DeadlineExceeded, DuplicateRequest, InstanceLost, PortInUse, QueueFull
from router.grpc_front import SERVICE, GrpcFront
from tests.unit.router_fronts.factories import (
    EOS_ID,
    HOLD,
    HOST,
    MODEL,
    TOKENIZER,
    FakeBackend,
    grpc_front,
    make_generator,
    say,
)

pytestmark = pytest.mark.unit

DETAILS = {"BadRequest": error_details_pb2.BadRequest, "RetryInfo": error_details_pb2.RetryInfo}


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend(say("Grüße, 🙂!", logprobs=True))


@pytest.fixture
async def client(backend: FakeBackend) -> AsyncIterator[BatonClient]:
    async with grpc_front(backend) as address, BatonClient(address) as client:
        yield client


def details_of(error: grpc.aio.AioRpcError) -> list[Message]:
    """Unpacked from the trailing metadata, as a client in any language would."""
    [packed] = [value for key, value in error.trailing_metadata() if key == "grpc-status-details-bin"]
    details = []
    for entry in status_pb2.Status.FromString(packed).details:
        detail = DETAILS[entry.TypeName().rpartition(".")[2]]()
        assert entry.Unpack(detail)
        details.append(detail)
    return details


async def refusal(client: BatonClient, prompt: Any = "hi", **options: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await client.complete(prompt, **options)
    return raised.value


async def test_deltas_carry_text_tokens_and_logprobs_and_the_last_one_the_usage(client: BatonClient) -> None:
    deltas = [delta async for delta in client.generate("hi", request_id="r", logprobs=1)]
    assert "".join(delta.text for delta in deltas) == "Grüße, 🙂!"
    assert tuple(delta.token_ids[0] for delta in deltas) == TOKENIZER.encode("Grüße, 🙂!")
    assert [delta.index for delta in deltas] == list(range(len(deltas)))
    assert {delta.request_id for delta in deltas} == {"r"}
    assert deltas[0].logprobs[0].top[0].token_id == deltas[0].token_ids[0]
    assert deltas[-1].finish_reason == baton_pb2.FINISH_REASON_LENGTH
    assert deltas[-1].usage.num_output_tokens == len(deltas)


async def test_what_was_asked_for_reaches_the_backend(client: BatonClient, backend: FakeBackend) -> None:
    await client.complete([5, 6], priority=3, seed=2**63, max_tokens=4, temperature=0.5, top_p=0.25, top_k=7)
    request, params = backend.last, backend.last.sampling_params
    assert (request.prompt_token_ids, request.priority, request.deadline_s) == ((5, 6), 3, None)
    assert (params.seed, params.max_tokens, params.temperature, params.top_p, params.top_k) == (2**63, 4, 0.5, 0.25, 7)
    await client.complete("hi", ignore_eos=True, stop_token_ids=[9], timeout_s=30)
    assert backend.last.sampling_params.stop_token_ids == {9}
    assert backend.last.deadline_s is not None


async def test_the_client_puts_a_completion_together(client: BatonClient) -> None:
    completion = await client.complete("hi", stop=[","])
    assert (completion.text, completion.finish_reason) == ("Grüße", FinishReason.STOP)
    assert completion.num_prompt_tokens == len(TOKENIZER.encode("hi"))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [10**6]}, "prompt"),
        ({"prompt": "word " * 200}, "prompt"),
        ({"temperature": float("nan")}, "sampling_params.temperature"),
        ({"top_k": -3}, "sampling_params.top_k"),
        ({"logprobs": 21}, "sampling_params.logprobs"),
        ({"stop": ["x"] * 50}, "sampling_params.stop"),
    ],
)
async def test_bad_input_is_an_invalid_argument_that_names_the_field(
    client: BatonClient, options: dict[str, Any], field: str
) -> None:
    error = await refusal(client, **options)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    [detail] = details_of(error)
    assert isinstance(detail, error_details_pb2.BadRequest)
    assert [violation.field for violation in detail.field_violations] == [field]


NOT_UTF8 = b"\xff\xfe"


@pytest.mark.parametrize(
    ("encoded", "said"),
    [
        (b"\x12\x02" + NOT_UTF8, "text: is not valid UTF-8"),
        (b"\x12\x02hi\x22\x04\x32\x02" + NOT_UTF8, "sampling_params.stop: is not valid UTF-8"),
        (b"\x12\x7f", "request: cannot be parsed"),
    ],
)
async def test_a_string_that_is_not_utf8_is_an_invalid_argument_too(
    backend: FakeBackend, encoded: bytes, said: str
) -> None:
    async with grpc_front(backend) as address, grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            [_ async for _ in channel.unary_stream(f"/{SERVICE}/Generate")(encoded)]
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.details() == said


async def test_a_full_queue_says_when_to_come_back(client: BatonClient, backend: FakeBackend) -> None:
    backend.refusal = QueueFull(1.5)
    error = await refusal(client)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    [detail] = details_of(error)
    assert isinstance(detail, error_details_pb2.RetryInfo)
    assert detail.retry_delay.ToMilliseconds() == 1500


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InstanceLost("d0: gone"), grpc.StatusCode.UNAVAILABLE),
        (DeadlineExceeded(), grpc.StatusCode.DEADLINE_EXCEEDED),
        (DuplicateRequest("r"), grpc.StatusCode.ALREADY_EXISTS),
    ],
)
async def test_an_error_in_mid_stream_ends_it_with_its_status(
    client: BatonClient, backend: FakeBackend, error: Exception, code: grpc.StatusCode
) -> None:
    backend.script = [*say("half", finish=None), error]
    raised = await refusal(client)
    assert (raised.code(), raised.details()) == (code, str(error))


async def test_a_defect_of_ours_is_an_internal_error_that_tells_no_secrets(
    client: BatonClient, backend: FakeBackend
) -> None:
    backend.refusal = KeyError("secret")
    error = await refusal(client)
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "internal error")


async def test_a_cancelled_call_aborts_its_request(client: BatonClient, backend: FakeBackend) -> None:
    backend.script = [*say("one", finish=None), HOLD]
    deltas = client.generate("hi", request_id="r")
    await anext(deltas)
    await deltas.aclose()
    await asyncio.wait_for(backend.was_closed["r"].wait(), 1)


async def test_a_call_s_own_deadline_ends_its_request(client: BatonClient, backend: FakeBackend) -> None:
    backend.script = [HOLD]
    error = await refusal(client, request_id="r", timeout_s=0.5)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(backend.was_closed["r"].wait(), 1)


async def test_abort_says_whether_there_was_such_a_request(client: BatonClient) -> None:
    await client.complete("hi", request_id="r")
    assert await client.abort("r")
    assert not await client.abort("s")
    with pytest.raises(grpc.aio.AioRpcError, match="request_id: must not be empty"):
        await client.abort("")


async def test_the_model_and_the_cluster_s_status_are_told(client: BatonClient) -> None:
    info = await client.model_info()
    assert (info.model, info.max_model_len, list(info.eos_token_ids)) == (MODEL, 100, [EOS_ID])
    assert (await client.status()).num_running_requests == 3


async def test_health_is_serving_only_when_ready(backend: FakeBackend) -> None:
    front = GrpcFront(make_generator(backend))
    address = f"{HOST}:{await front.start(HOST, 0)}"
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for ready, status in ((False, "NOT_SERVING"), (True, "SERVING"), (False, "NOT_SERVING")):
            await front.set_ready(ready)
            for service in ("", SERVICE):
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
                assert health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status) == status
    await front.stop(grace_s=0)


async def test_the_service_is_found_by_reflection(backend: FakeBackend) -> None:
    def discover(address: str) -> tuple[set[str], list[str]]:
        with grpc.insecure_channel(address) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            methods = database.FindFileContainingSymbol(SERVICE).service[0].method
            return set(database.get_services()), [method.name for method in methods]

    async with grpc_front(backend) as address:
        services, methods = await asyncio.to_thread(discover, address)
    assert {SERVICE, "grpc.health.v1.Health"} <= services
    assert {"Generate", "Attach", "Abort", "GetModelInfo", "Status"} <= set(methods)


async def test_a_port_in_use_is_said_in_one_line(backend: FakeBackend) -> None:
    async with grpc_front(backend) as address:
        port = int(address.rpartition(":")[2])
        with pytest.raises(PortInUse, match=f"^cannot listen on {HOST}:{port}: .*in use$"):
            await GrpcFront(make_generator(backend)).start(HOST, port)


async def test_nobody_else_can_take_a_share_of_the_connections(backend: FakeBackend) -> None:
    async with grpc_front(backend) as address:
        with socket.socket() as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with pytest.raises(OSError, match="in use"):
                thief.bind((HOST, int(address.rpartition(":")[2])))
