"""Anthropic's shape of an error."""

from __future__ import annotations

import math
from typing import Any

from starlette.responses import JSONResponse, Response

from bandweave.serving.errors import ApiError
from bandweave.serving.event_lines import named_event
from bandweave.serving.identifiers import new_id

_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}


def error_object(error: ApiError, request_id: str) -> dict[str, Any]:
    kind = _KINDS.get(error.status)
    if kind is None:
        kind = "api_error" if error.status >= 500 else "invalid_request_error"
    return {
        "type": "error",
        "error": {"type": kind, "message": error.message},
        "request_id": request_id,
    }


def error_response(error: ApiError) -> Response:
    request_id = new_request_id()
    headers = {"request-id": request_id}
    if error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
        headers["Retry-After-Ms"] = str(math.ceil(1000 * error.retry_after))  # their libraries'
    # Anthropic's clients know a server that is too busy by a number of its own.
    status = 529 if error.status == 503 else error.status
    return JSONResponse(error_object(error, request_id), status, headers)


def error_event(error: ApiError, request_id: str) -> bytes:
    """The last event of a stream that failed."""
    return named_event(error_object(error, request_id))


def new_request_id() -> str:
    return new_id("req", "_")
