"""``/health``: whether to wait for answers, for whoever watches over servers. Never waits."""

from __future__ import annotations

import math

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bandweave.serving.status.service import Service

_RETRY_SECONDS = 5.0


async def health(request: Request) -> Response:
    service: Service = request.app.state.service
    why = service.trouble()
    if not why:
        return JSONResponse({"status": "ok"})
    error = {"message": why, "type": "server_error", "param": None, "code": "unavailable"}
    headers = {"Retry-After": str(math.ceil(_RETRY_SECONDS))}
    return JSONResponse({"status": "unavailable", "reason": why, "error": error}, 503, headers)


def routes() -> list[Route]:
    return [Route("/health", health, methods=["GET"]), Route("/v1/health", health, methods=["GET"])]
