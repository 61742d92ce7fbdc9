"""OpenAI's shape of an error."""

from __future__ import annotations

import math
from typing import Any

from starlette.responses import JSONResponse, Response

from bandweave.serving.errors import ApiError
from bandweave.serving.event_lines import data_event


def error_object(error: ApiError) -> dict[str, Any]:
    return {
        "error": {
            "message": error.message,
            "type": error.kind,
            "param": error.param,
            "code": error.code,
        }
    }


def stream_error(error: ApiError) -> bytes:
    """The event that ends a stream."""
    return data_event(error_object(error))


def error_response(error: ApiError) -> Response:
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
        headers["Retry-After-Ms"] = str(math.ceil(1000 * error.retry_after))  # as their library has
    return JSONResponse(error_object(error), error.status, headers)
