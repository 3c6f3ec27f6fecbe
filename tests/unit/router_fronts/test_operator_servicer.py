"""The operators' calls over a real socket, to a router without instances."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import grpc
import pytest

import router.client
from cluster.handshake import draw_secret
from cluster.pb import baton_pb2, baton_pb2_grpc
from router.client import BatonClient
from router.config import RouterConfig
from router.grpc_front import GrpcFront
from router.operator_servicer import OperatorServicer
from router.router import Router
from tests.unit.router_fronts.factories import HOST, FakeBackend, make_generator

pytestmark = pytest.mark.unit


@pytest.fixture
async def client() -> AsyncIterator[BatonClient]:
    names = {"name": "r", "deployment": "test", "model_name": "tiny", "model_path": ""}
    core = Router(RouterConfig(**names, secret=draw_secret(), term=1))
    front = GrpcFront(make_generator(FakeBackend()), OperatorServicer(core.operations, core.timeline, core.links))
    port = await front.start(HOST, 0)
    async with BatonClient(f"{HOST}:{port}") as client:
        yield client
    await front.stop()


class SilentRouter(baton_pb2_grpc.BatonServicer):
    """Takes every call, and answers none."""

    async def _say_nothing(self, request: Any, context: Any) -> Any:
        await asyncio.Event().wait()

    Migrate = Trace = Abort = _say_nothing

    async def Drain(self, request: Any, context: Any) -> AsyncIterator[baton_pb2.DrainProgress]:
        yield baton_pb2.DrainProgress(num_requests=1)
        await asyncio.Event().wait()

    Flip = Drain


@pytest.mark.parametrize("operation", ["migrate", "trace", "abort", "drain", "flip"])
async def test_a_router_that_falls_silent_is_an_error(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for timeout in ("CALL_TIMEOUT_S", "MIGRATE_CALL_TIMEOUT_S", "SILENCE_S"):
        monkeypatch.setattr(router.client, timeout, 0.1)
    server = grpc.aio.server()
    baton_pb2_grpc.add_BatonServicer_to_server(SilentRouter(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    async with BatonClient(f"{HOST}:{port}") as client:
        call = getattr(client, operation)(*("x", "y")[: 2 if operation in ("migrate", "flip") else 1])
        if operation in ("drain", "flip"):
            assert (await anext(call)).num_requests == 1
            call = anext(call)
        assert (await error_of(asyncio.wait_for(call, 20.0)))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    await server.stop(None)


async def error_of(call: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_a_refusal_is_failed_precondition_with_the_reason(client: BatonClient) -> None:
    expected = (grpc.StatusCode.FAILED_PRECONDITION, "there is no instance 'd'; there are none")
    assert await error_of(client.migrate("r", "d")) == expected
    assert await error_of(anext(client.drain("d"))) == expected
    assert await error_of(anext(client.flip("d", "decode"))) == expected
    undone = await error_of(anext(client.drain("d", undo=True)))
    assert undone == (grpc.StatusCode.FAILED_PRECONDITION, "d is not being drained")


async def test_what_is_missing_is_named(client: BatonClient) -> None:
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    assert await error_of(client.migrate("", "d")) == (invalid, "request_id: must not be empty")
    assert await error_of(client.migrate("r", "")) == (invalid, "instance: must not be empty")
    assert await error_of(anext(client.drain(""))) == (invalid, "instance: must not be empty")
    assert await error_of(anext(client.flip("d", ""))) == (invalid, "role: must not be empty")
    assert (await error_of(anext(client.flip("d", "cook"))))[0] is invalid
    assert await error_of(client.trace("")) == (invalid, "request_id: must not be empty")


async def test_of_a_request_that_nobody_knows_there_is_no_trace(client: BatonClient) -> None:
    assert (await error_of(client.trace("r")))[0] is grpc.StatusCode.NOT_FOUND


async def test_another_dispatch_policy_is_chosen_by_its_name_and_the_one_before_is_told(client: BatonClient) -> None:
    policies = ["least_loaded", "least_time", "least_time"]
    assert [await client.set_dispatch_policy(policy) for policy in policies] == ["least_time", *policies[:2]]
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await client.set_dispatch_policy("nearest")
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "least_time" in str(raised.value.details())
