"""What can go wrong with a request, as types, and the status each becomes on gRPC and HTTP."""

import copyreg
from dataclasses import dataclass
from typing import Any


class BatonError(Exception):
    """Its text is one line that may be shown to a client."""

    def __reduce__(self) -> tuple[Any, ...]:
        """By its text and fields: pickle, and so Ray, would call `__init__` with the text alone."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class InvalidRequest(BatonError):
    """`field` is the one to correct, under the name that the client's interface gives it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class ModelNotFound(InvalidRequest):
    """The request names a model that is not served here."""


class QueueFull(BatonError):
    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"the queue is full, try again in {retry_after_s:.1f} s")
        self.retry_after_s = retry_after_s


class DuplicateRequest(BatonError):
    def __init__(self, request_id: str) -> None:
        super().__init__(f"a request with the id {request_id!r} is already running")


class UnknownRequest(BatonError):
    """Nobody has it, or has it any more: the client may send it again, under the same id."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"no request with the id {request_id!r} is running or has just ended")


class CannotResume(BatonError):
    """What the client has is not the beginning of this request's output; the text says why."""


class InstanceLost(BatonError):
    def __init__(self, reason: str) -> None:
        super().__init__(f"the instance that held the request was lost: {reason}")


class NoInstance(BatonError):
    """No instance could take the request; the text says which kind is missing."""


class DeadlineExceeded(BatonError):
    def __init__(self, message: str = "the request's deadline has passed") -> None:
        super().__init__(message)


class RequestAborted(BatonError):
    def __init__(self, request_id: str) -> None:
        super().__init__(f"request {request_id} was aborted")


class OperationRefused(BatonError):
    """What an operator asked for cannot be done now, and nothing has changed; the text says why."""


class GenerationFailed(BatonError):
    """A defect on our side: the text says what was seen."""


class PortInUse(BatonError):
    def __init__(self, host: str, port: int, reason: str = "it is in use") -> None:
        super().__init__(f"cannot listen on {host}:{port}: {reason}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorStatus:
    """`grpc` is the name of a `grpc.StatusCode`; `kind` is the `type` in OpenAI's error object."""

    grpc: str
    http: int
    kind: str


ERROR_STATUS: dict[type[BatonError], ErrorStatus] = {
    InvalidRequest: ErrorStatus(grpc="INVALID_ARGUMENT", http=400, kind="invalid_request_error"),
    ModelNotFound: ErrorStatus(grpc="NOT_FOUND", http=404, kind="invalid_request_error"),
    QueueFull: ErrorStatus(grpc="RESOURCE_EXHAUSTED", http=429, kind="rate_limit_error"),
    DuplicateRequest: ErrorStatus(grpc="ALREADY_EXISTS", http=409, kind="invalid_request_error"),
    UnknownRequest: ErrorStatus(grpc="NOT_FOUND", http=404, kind="invalid_request_error"),
    CannotResume: ErrorStatus(grpc="ABORTED", http=409, kind="invalid_request_error"),
    InstanceLost: ErrorStatus(grpc="UNAVAILABLE", http=503, kind="service_unavailable_error"),
    NoInstance: ErrorStatus(grpc="UNAVAILABLE", http=503, kind="service_unavailable_error"),
    DeadlineExceeded: ErrorStatus(grpc="DEADLINE_EXCEEDED", http=504, kind="timeout_error"),
    RequestAborted: ErrorStatus(grpc="CANCELLED", http=499, kind="request_aborted_error"),
    OperationRefused: ErrorStatus(grpc="FAILED_PRECONDITION", http=409, kind="operation_refused_error"),
    GenerationFailed: ErrorStatus(grpc="INTERNAL", http=500, kind="server_error"),
}


def status_of(error: Exception) -> ErrorStatus:
    """The status of the error's nearest type in the table; what is in none is our own failure."""
    for kind in type(error).__mro__:
        if kind in ERROR_STATUS:
            return ERROR_STATUS[kind]
    return ERROR_STATUS[GenerationFailed]
