"""App: all routes of the server, over one model."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bandweave.serving.answers.served import Served
from bandweave.serving.errors import ApiError
from bandweave.serving.openai import routes as openai
from bandweave.serving.openai.errors import error_response
from bandweave.serving.page import routes as page_routes
from bandweave.serving.status import routes as status_routes
from bandweave.serving.status.machines import Machines
from bandweave.serving.status.sampler import Sampler
from bandweave.serving.status.status import Status


def make_app(served: Served, *, machines: Machines | None = None) -> Starlette:
    """``machines``: those that the status tells of, None for an engine that has none."""
    sampler = Sampler(served.answering.engine)
    status = Status(served, sampler, machines)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        with sampler, contextlib.closing(status):
            status.start()
            yield

    app = Starlette(
        routes=[
            *openai.routes(),
            *status_routes.routes(),
            *page_routes.routes(),
            Route("/health", _health, methods=["GET"]),
        ],
        exception_handlers={HTTPException: _http_error},
        lifespan=lifespan,
    )
    app.state.served, app.state.status = served, status
    return app


async def _health(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path[:200]
    message = {
        404: f"there is nothing at {path}",
        405: f"{path} is not for {request.method}",
    }.get(error.status_code, str(error.detail))
    response = error_response(ApiError(error.status_code, message))
    response.headers.update(error.headers or {})
    return response
