"""OpenAI's shape of an error."""

from __future__ import annotations

import math
from typing import Any

from starlette.responses import JSONResponse, Response

from bandweave.serving.errors import ApiError


def error_object(error: ApiError) -> dict[str, Any]:
    return {
        "error": {
            "message": error.message,
            "type": error.kind,
            "param": error.param,
            "code": error.code,
        }
    }


def error_response(error: ApiError) -> Response:
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    return JSONResponse(error_object(error), error.status, headers)
