"""The routes of ``/v1/responses``."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bandweave.serving.answers.conversation import count
from bandweave.serving.errors import ApiError
from bandweave.serving.http.handler import Context, answer_stream, handler
from bandweave.serving.http.stream import EventStream, while_there
from bandweave.serving.openai.errors import error_response
from bandweave.serving.openai.responses_answer import ResponseAnswer
from bandweave.serving.openai.responses_request import read_question, read_request


async def responses(context: Context, request: Request) -> Response:
    fields = await context.fields(request)
    asked = await read_request(fields, context.served, context.key, context.weight)
    answer = ResponseAnswer(asked, context.served)
    stream = answer_stream(context, asked.ask)
    if asked.streams:
        return EventStream(answer.pieces(stream), on_error=answer.failure)
    return JSONResponse(await while_there(request.receive, answer.whole(stream)))


async def input_tokens(context: Context, request: Request) -> Response:
    question = read_question(await context.fields(request), context.served)
    tokens = await count(context.served, question.conversation)
    return JSONResponse({"object": "response.input_tokens", "input_tokens": tokens})


async def compact(context: Context, request: Request) -> Response:
    raise ApiError(404, "conversations are not compacted here; let the client sum them up")


async def kept(context: Context, request: Request) -> Response:
    id = request.path_params["id"].partition("/")[0]
    raise ApiError(404, f"there is no response {id[:80]!r}: answers are not kept here")


def routes() -> list[Route]:
    return [
        Route("/v1/responses", handler(responses, error_response), methods=["POST"]),
        Route("/v1/responses/input_tokens", handler(input_tokens, error_response),
              methods=["POST"]),
        Route("/v1/responses/compact", handler(compact, error_response), methods=["POST"]),
        Route("/v1/responses/{id:path}", handler(kept, error_response),
              methods=["GET", "DELETE", "POST"]),
    ]  # fmt: skip
