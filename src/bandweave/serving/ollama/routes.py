"""The routes of Ollama's API."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

from bandweave import __version__
from bandweave.serving.event_lines import json_line
from bandweave.serving.http.handler import Context, answer_stream, answer_streams, handler
from bandweave.serving.http.stream import EventStream, while_there
from bandweave.serving.ollama.answer import OllamaAnswer
from bandweave.serving.ollama.embedding import read_embed, read_vectors
from bandweave.serving.ollama.errors import error_line, error_response
from bandweave.serving.ollama.listing import API_VERSION, listed, running, shown
from bandweave.serving.ollama.request import check_model, read_request

_LINES = "application/x-ndjson"
_SPACE = b" "  # before a line; JSON has nothing else that says nothing


async def chat(context: Context, request: Request) -> Response:
    return await _answer(context, request, chats=True)


async def generate(context: Context, request: Request) -> Response:
    return await _answer(context, request, chats=False)


async def _answer(context: Context, request: Request, *, chats: bool) -> Response:
    fields = await context.fields(request)
    served = context.served
    asked = await read_request(fields, served, context.key, context.weight, chats=chats)
    answer = OllamaAnswer(asked, served)
    if asked.ask is None:
        return Response(json_line(answer.nothing()), media_type=_LINES if asked.streams else
                        "application/json")  # fmt: skip
    stream = answer_stream(context, asked.ask)
    if asked.streams:
        return EventStream(
            answer.lines(stream), on_error=error_line, media_type=_LINES, comment=_SPACE
        )
    return JSONResponse(await while_there(request.receive, answer.whole(stream)))


async def embed(context: Context, request: Request) -> Response:
    return await _vectors(context, request, older=False)


async def embed_one(context: Context, request: Request) -> Response:
    return await _vectors(context, request, older=True)


async def _vectors(context: Context, request: Request, *, older: bool) -> Response:
    fields = await context.fields(request)
    asked = await read_embed(fields, context.served, context.key, context.weight, older=older)
    streams = answer_streams(context, asked.asks) if asked.asks else []
    work = read_vectors(asked, streams, context.served)
    return JSONResponse(await while_there(request.receive, work))


async def tags(context: Context, request: Request) -> Response:
    return JSONResponse({"models": [listed(context.served)]})


async def ps(context: Context, request: Request) -> Response:
    return JSONResponse({"models": [running(context.served)]})


async def show(context: Context, request: Request) -> Response:
    check_model(await context.fields(request), context.served)
    return JSONResponse(shown(context.served))


async def version(context: Context, request: Request) -> Response:
    return JSONResponse({"version": API_VERSION, "bandweave": __version__})


async def there(context: Context, request: Request) -> Response:
    return PlainTextResponse("Ollama is running")


class _Start(Route):
    """The page's path, for those who only want to know whether somebody is there."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        agents = [value for name, value in scope.get("headers", ()) if name == b"user-agent"]
        ollamas = any(agent.lower().startswith(b"ollama") for agent in agents)
        if not ollamas and scope.get("method") != "HEAD":
            return Match.NONE, {}
        return super().matches(scope)


def routes() -> list[Route]:
    """To stand before the page's."""
    return [
        _Start("/", handler(there, error_response), methods=["GET", "HEAD"]),
        Route("/api/chat", handler(chat, error_response), methods=["POST"]),
        Route("/api/generate", handler(generate, error_response), methods=["POST"]),
        Route("/api/embed", handler(embed, error_response), methods=["POST"]),
        Route("/api/embeddings", handler(embed_one, error_response), methods=["POST"]),
        Route("/api/show", handler(show, error_response), methods=["POST"]),
        Route("/api/tags", handler(tags, error_response), methods=["GET"]),
        Route("/api/ps", handler(ps, error_response), methods=["GET"]),
        Route("/api/version", handler(version, error_response), methods=["GET"]),
    ]
