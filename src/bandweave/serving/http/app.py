"""App: all routes of the server, and what every request passes before them."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from bandweave.serving.answers.served import Served
from bandweave.serving.anthropic import routes as anthropic
from bandweave.serving.anthropic.errors import error_response as anthropics_error
from bandweave.serving.errors import ApiError
from bandweave.serving.http import health
from bandweave.serving.http.body import Contents
from bandweave.serving.http.guard import Guard
from bandweave.serving.http.handler import Exchanges, ShapeError
from bandweave.serving.http.keys import Keys
from bandweave.serving.http.limits import Limits
from bandweave.serving.http.origins import Origins
from bandweave.serving.ollama import routes as ollama
from bandweave.serving.ollama.errors import error_response as ollamas_error
from bandweave.serving.openai import routes as openai
from bandweave.serving.openai.errors import error_response
from bandweave.serving.page import routes as page_routes
from bandweave.serving.status import routes as status_routes
from bandweave.serving.status.service import Service
from bandweave.serving.status.status import Status

# Paths below which errors have a shape of their own; all others have OpenAI's.
_SHAPES: tuple[tuple[str, ShapeError], ...] = (
    ("/v1/messages", anthropics_error),
    ("/api/", ollamas_error),
)
# No key is needed for these; the page asks for one before it shows anything.
_FREE = ("/health", "/v1/health", *page_routes.paths())


def make_app(
    served: Served | Service,
    *,
    keys: Keys | None = None,
    origins: Origins | None = None,
    limits: Limits | None = None,
) -> Starlette:
    """``served``: a model, or a service that may have none yet."""
    guard = Middleware(
        Guard, keys=keys or Keys(), origins=origins or Origins(), shape=shape_at, free=_FREE
    )
    app = Starlette(
        routes=[
            *anthropic.routes(),
            *ollama.routes(),
            *openai.routes(),
            *health.routes(),
            *status_routes.routes(),
            *page_routes.routes(),
        ],
        middleware=[guard],
        exception_handlers={HTTPException: _http_error},
    )
    service = served if isinstance(served, Service) else Service(served)
    app.state.service, app.state.status = service, Status(service)
    app.state.exchanges = Exchanges()
    app.state.contents = Contents(limits or Limits())
    return app


def shape_at(path: str, error: ApiError) -> Response:
    """An error, as the protocol of a path writes it."""
    for prefix, shape in _SHAPES:
        if path.startswith(prefix):
            return shape(error)
    return error_response(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path[:200]
    message = {
        404: f"there is nothing at {path}",
        405: f"{path} is not for {request.method}",
    }.get(error.status_code, str(error.detail))
    response = shape_at(path, ApiError(error.status_code, message))
    response.headers.update(error.headers or {})
    return response
