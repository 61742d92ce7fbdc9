"""Ollama's shape of an error."""

from __future__ import annotations

import math

from starlette.responses import JSONResponse, Response

from bandweave.serving.errors import ApiError
from bandweave.serving.event_lines import json_line


def error_response(error: ApiError) -> Response:
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    return JSONResponse({"error": error.message}, error.status, headers)


def error_line(error: ApiError) -> bytes:
    """The last line of a stream that failed."""
    return json_line({"error": error.message})
