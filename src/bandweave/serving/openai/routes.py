"""The routes of OpenAI's API."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bandweave.serving.errors import unknown_model
from bandweave.serving.http.handler import Context, answer_stream, handler
from bandweave.serving.http.stream import EventStream, while_there
from bandweave.serving.openai import responses_routes
from bandweave.serving.openai.chat import ChatAnswer, read_chat
from bandweave.serving.openai.errors import error_response, stream_error


async def chat(context: Context, request: Request) -> Response:
    fields = await context.fields(request)
    asked = await read_chat(fields, context.served, context.key, context.weight)
    answer = ChatAnswer(asked, context.served)
    stream = answer_stream(context, asked.ask)
    if asked.streams:
        return EventStream(answer.pieces(stream), on_error=stream_error)
    return JSONResponse(await while_there(request.receive, answer.whole(stream)))


async def models(context: Context, request: Request) -> Response:
    return JSONResponse({"object": "list", "data": [_model(context)]})


async def model(context: Context, request: Request) -> Response:
    name = request.path_params["name"]
    if name != context.served.name and not context.served.any_name:
        raise unknown_model(name, context.served.name)
    return JSONResponse(_model(context))


def _model(context: Context) -> dict[str, object]:
    served = context.served
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "bandweave",
        "max_model_len": served.context,
    }


def routes() -> list[Route]:
    return [
        *responses_routes.routes(),
        Route("/v1/chat/completions", handler(chat, error_response), methods=["POST"]),
        Route("/v1/models", handler(models, error_response), methods=["GET"]),
        Route("/v1/models/{name:path}", handler(model, error_response), methods=["GET"]),
    ]
