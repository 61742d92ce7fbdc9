"""The routes of OpenAI's API, and of what other servers that speak it have beside it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bandweave.serving.errors import PromptTooLong
from bandweave.serving.http.handler import (
    Context,
    Handle,
    answer_stream,
    answer_streams,
    handler,
)
from bandweave.serving.http.stream import EventStream, while_there
from bandweave.serving.openai import responses_routes, tokens
from bandweave.serving.openai.chat import ChatAnswer, read_chat
from bandweave.serving.openai.completion_answer import CompletionAnswer
from bandweave.serving.openai.completions import read_completion
from bandweave.serving.openai.embeddings import read_embeddings, read_vectors
from bandweave.serving.openai.errors import error_response, stream_error
from bandweave.serving.openai.models import model_list, model_object


async def chat(context: Context, request: Request) -> Response:
    fields = await context.fields(request)
    asked = await read_chat(fields, context.served, context.key, context.weight)
    answer = ChatAnswer(asked, context.served)
    stream = answer_stream(context, asked.ask)
    if asked.streams:
        return EventStream(answer.pieces(stream), on_error=stream_error)
    return JSONResponse(await while_there(request.receive, answer.whole(stream)))


async def chat_tokens(context: Context, request: Request) -> Response:
    """Even of a chat that is too long."""
    fields = await context.fields(request)
    try:
        asked = await read_chat(fields, context.served, context.key, context.weight)
        count = len(asked.ask.tokens)
    except PromptTooLong as error:
        count = error.tokens
    return JSONResponse({"object": "response.input_tokens", "input_tokens": count})


async def completion(context: Context, request: Request) -> Response:
    fields = await context.fields(request)
    asked = await read_completion(fields, context.served, context.key, context.weight)
    answer = CompletionAnswer(asked, context.served)
    streams = answer_streams(context, asked.asks)
    if asked.streams:
        return EventStream(answer.pieces(streams), on_error=stream_error)
    return JSONResponse(await while_there(request.receive, answer.whole(streams)))


async def embeddings(context: Context, request: Request) -> Response:
    fields = await context.fields(request)
    asks, packed = await read_embeddings(fields, context.served, context.key, context.weight)
    streams = answer_streams(context, asks)
    work = read_vectors(streams, context.served, packed=packed)
    return JSONResponse(await while_there(request.receive, work))


async def tokenize(context: Context, request: Request) -> Response:
    return JSONResponse(await tokens.tokenize(await context.fields(request), context.served))


async def detokenize(context: Context, request: Request) -> Response:
    return JSONResponse(await tokens.detokenize(await context.fields(request), context.served))


async def models(context: Context, request: Request) -> Response:
    return JSONResponse(model_list(context.served))


async def model(context: Context, request: Request) -> Response:
    name = request.path_params["name"]
    context.served.check_name(name)
    return JSONResponse(model_object(context.served.asked_as(name)))


_POSTED: tuple[tuple[str, Handle], ...] = (
    ("/chat/completions", chat),
    ("/chat/completions/input_tokens", chat_tokens),
    ("/completions", completion),
    ("/embeddings", embeddings),
    ("/tokenize", tokenize),
    ("/detokenize", detokenize),
)
_GOT: tuple[tuple[str, Handle], ...] = (("/models", models), ("/models/{name:path}", model))


def routes() -> list[Route]:
    """Each below ``/v1``, and without it, for clients that were given the bare address."""
    return [
        *responses_routes.routes(),
        *(
            Route(prefix + path, handler(handle, error_response), methods=[method])
            for prefix in ("/v1", "")
            for method, table in (("POST", _POSTED), ("GET", _GOT))
            for path, handle in table
        ),
    ]
