"""App: all routes of the server, over one model."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bandweave.serving.answers.served import Served
from bandweave.serving.anthropic import routes as anthropic
from bandweave.serving.anthropic.errors import error_response as anthropics_error
from bandweave.serving.errors import ApiError
from bandweave.serving.ollama import routes as ollama
from bandweave.serving.ollama.errors import error_response as ollamas_error
from bandweave.serving.openai import routes as openai
from bandweave.serving.openai.errors import error_response

# All other paths' errors are in OpenAI's shape.
_SHAPES = (("/v1/messages", anthropics_error), ("/api/", ollamas_error))


def make_app(served: Served) -> Starlette:
    app = Starlette(
        routes=[
            *anthropic.routes(),
            *ollama.routes(),
            *openai.routes(),
            Route("/health", _health, methods=["GET"]),
        ],
        exception_handlers={HTTPException: _http_error},
    )
    app.state.served = served
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
    shape = next((shape for start, shape in _SHAPES if path.startswith(start)), error_response)
    response = shape(ApiError(error.status_code, message))
    response.headers.update(error.headers or {})
    return response
