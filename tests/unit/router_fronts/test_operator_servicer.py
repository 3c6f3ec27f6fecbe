"""The operators' calls over a real socket, to a router without instances."""

from collections.abc import AsyncIterator, Awaitable

import grpc
import pytest

from cluster.handshake import draw_secret
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
    router = Router(RouterConfig(**names, secret=draw_secret(), term=1))
    front = GrpcFront(make_generator(FakeBackend()), OperatorServicer(router.operations, router.timeline))
    port = await front.start(HOST, 0)
    async with BatonClient(f"{HOST}:{port}") as client:
        yield client
    await front.stop()


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
