"""The gRPC front: service Baton, health, reflection. It only translates; `TextGenerator` does the work."""

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from cluster.pb import baton_pb2
from router import grpc_messages
from router.errors import InvalidRequest, PortInUse
from router.generation import TextGenerator
from router.grpc_errors import Context, errors_as_status
from router.listening_socket import address, listening_socket
from router.operator_servicer import OperatorServicer

SERVICE = baton_pb2.DESCRIPTOR.services_by_name["Baton"].full_name


class GrpcFront:
    """To be made, as it is used, in a running event loop."""

    def __init__(self, generator: TextGenerator, operator: OperatorServicer | None = None) -> None:
        """Without `operator` it answers clients only."""
        self._generator = generator
        self._operator = operator
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # the stubs do not know it
        # Without SO_REUSEPORT a second server on the port fails instead of taking every other connection.
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))

    async def start(self, host: str, port: int) -> int:
        """Returns the bound port (0 draws one). Not ready yet: see `set_ready`. Raises PortInUse."""
        handlers = _handlers(_Servicer(self._generator)) | (self._operator.handlers() if self._operator else {})
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        await self.set_ready(False)
        listening_socket(host, port).close()  # says why not, where gRPC only says that it failed
        try:
            bound = self._server.add_insecure_port(address(host, port))
        except RuntimeError:
            raise PortInUse(host, port) from None
        await self._server.start()
        return bound

    async def set_ready(self, ready: bool) -> None:
        """What grpc.health.v1 says of the server and of the service."""
        serving = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", SERVICE):
            await self._health.set(service, serving)

    async def stop(self, grace_s: float = 0.5) -> None:
        """Calls that still run after `grace_s` are cancelled, which aborts their requests."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)


class _Servicer:
    def __init__(self, generator: TextGenerator) -> None:
        self._generator = generator

    # It writes rather than yields: so a cancelled call is cancelled here, and not only at its next delta.
    async def generate(self, request: baton_pb2.GenerateRequest | InvalidRequest, context: Context) -> None:
        async with errors_as_status(context):
            if isinstance(request, InvalidRequest):
                raise request
            wanted = grpc_messages.to_request(request, context.time_remaining())
            async with aclosing(self._generator.generate(wanted)) as deltas:
                async for delta in deltas:
                    await context.write(grpc_messages.from_delta(delta))

    async def attach(self, request: baton_pb2.AttachRequest | InvalidRequest, context: Context) -> None:
        async with errors_as_status(context):
            if isinstance(request, InvalidRequest):
                raise request
            point, stop = grpc_messages.to_resume_point(request), tuple(request.stop)
            sent = grpc_messages.to_request(request.request, None) if request.HasField("request") else None
            async with (
                aclosing(await self._generator.attach(point, stop, sent)) as continuation,
                aclosing(continuation.deltas()) as deltas,
            ):
                async for delta in deltas:
                    await context.write(grpc_messages.from_delta(delta))

    async def abort(self, request: baton_pb2.AbortRequest, context: Context) -> baton_pb2.AbortResponse:
        async with errors_as_status(context):
            if not request.request_id:
                raise InvalidRequest("request_id", "must not be empty")
            return baton_pb2.AbortResponse(found=self._generator.backend.abort(request.request_id))

    async def get_model_info(self, request: baton_pb2.GetModelInfoRequest, context: Context) -> baton_pb2.ModelInfo:
        return grpc_messages.from_model_info(self._generator.model_info)

    async def status(self, request: baton_pb2.StatusRequest, context: Context) -> baton_pb2.ClusterStatus:
        return self._generator.backend.status()


def _handlers(servicer: _Servicer) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
    """Made by hand for the sake of the deserializers: gRPC would call a broken request an internal error."""
    unary: dict[str, tuple[Callable[..., Any], Any]] = {
        "Abort": (servicer.abort, baton_pb2.AbortRequest),
        "GetModelInfo": (servicer.get_model_info, baton_pb2.GetModelInfoRequest),
        "Status": (servicer.status, baton_pb2.StatusRequest),
    }
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(method, message.FromString, _serialize)
        for name, (method, message) in unary.items()
    }
    streams: dict[str, tuple[Callable[..., Any], Any]] = {
        "Generate": (servicer.generate, baton_pb2.GenerateRequest),
        "Attach": (servicer.attach, baton_pb2.AttachRequest),
    }
    handlers |= {
        name: grpc.unary_stream_rpc_method_handler(method, grpc_messages.parser(message), _serialize)
        for name, (method, message) in streams.items()
    }
    return handlers


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
