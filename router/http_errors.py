"""Errors as OpenAI says them, so that its client raises the right class."""

import logging
import math
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from router.errors import BatonError, GenerationFailed, InvalidRequest, ModelNotFound, QueueFull, status_of

log = logging.getLogger(__name__)


def error_body(error: BatonError) -> dict[str, Any]:
    """{"error": {message, type, param, code}}; `param` is the field at fault."""
    return {
        "error": {
            "message": str(error),
            "type": status_of(error).kind,
            "param": error.field if isinstance(error, InvalidRequest) else None,
            "code": "model_not_found" if isinstance(error, ModelNotFound) else None,
        }
    }


async def on_baton_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, BatonError)
    headers = {}
    if isinstance(error, QueueFull):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    return JSONResponse(error_body(error), status_of(error).http, headers)


async def on_http_error(request: Request, error: Exception) -> Response:
    """No such path, or not with this method."""
    assert isinstance(error, HTTPException)
    content = {"message": error.detail, "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse({"error": content}, error.status_code, error.headers)


async def on_unexpected(request: Request, error: Exception) -> Response:
    """The server logs what it was."""
    return JSONResponse(error_body(GenerationFailed("internal error")), 500)


EXCEPTION_HANDLERS = {BatonError: on_baton_error, HTTPException: on_http_error, Exception: on_unexpected}
