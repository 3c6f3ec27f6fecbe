"""Our errors as gRPC's: the status they become, and google.rpc details for programs."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from router import grpc_messages
from router.errors import BatonError, GenerationFailed, InvalidRequest, QueueFull, status_of

log = logging.getLogger(__name__)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


@asynccontextmanager
async def errors_as_status(context: Context) -> AsyncIterator[None]:
    """Ends the call with the status of what is raised inside."""
    try:
        yield
    except BatonError as error:
        await _abort(context, error)
    except Exception:
        log.exception("a request failed for a reason that is ours")
        await _abort(context, GenerationFailed("internal error"))


async def _abort(context: Context, error: BatonError) -> None:
    code = grpc.StatusCode[status_of(error).grpc]
    status = status_pb2.Status(code=code.value[0], message=str(error), details=_details(error))
    rich = rpc_status.to_status(status)
    await context.abort(rich.code, rich.details, rich.trailing_metadata)


def _details(error: BatonError) -> list[any_pb2.Any]:
    """google.rpc error details: the field at fault, or when to come back."""
    detail: Message
    if isinstance(error, InvalidRequest):
        field = grpc_messages.field_path(error.field)
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=error.message)
        detail = error_details_pb2.BadRequest(field_violations=[violation])
    elif isinstance(error, QueueFull):
        delay = Duration()
        delay.FromMilliseconds(round(error.retry_after_s * 1000))
        detail = error_details_pb2.RetryInfo(retry_delay=delay)
    else:
        return []
    packed = any_pb2.Any()
    packed.Pack(detail)
    return [packed]
