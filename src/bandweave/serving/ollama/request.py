"""``/api/chat`` and ``/api/generate``: the fields of a request."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from bandweave.serving.answers.ask import Ask
from bandweave.serving.answers.conversation import Prepared, hold, prepare
from bandweave.serving.answers.grammars import Wanted
from bandweave.serving.answers.served import Served
from bandweave.serving.answers.syntax import PLAIN
from bandweave.serving.errors import ApiError, bad, too_long
from bandweave.serving.fields import Fields
from bandweave.serving.ollama.messages import read_chat, read_form, read_prompt
from bandweave.serving.ollama.options import read_options

_MOST_LOGPROBS = 20
_TAG = ":latest"


@dataclass(frozen=True, kw_only=True)
class OllamaRequest:
    """A request: with ``chats`` of messages, else of a prompt. ``ask`` is None where nothing is
    asked, as clients do that want the model loaded."""

    ask: Ask | None
    chats: bool
    streams: bool
    logprobs: bool


async def read_request(
    fields: Fields, served: Served, key: str, weight: float, *, chats: bool
) -> OllamaRequest:
    """``ApiError`` for what cannot be asked."""
    check_model(fields, served)
    params = read_options(fields, served)
    _refuse(fields)
    logprobs = fields.flag("logprobs")
    top = fields.integer("top_logprobs", 0, 0, _MOST_LOGPROBS)
    if top and not logprobs:
        raise bad("top_logprobs is for logprobs; set logprobs to true", "top_logprobs")
    raw = not chats and fields.flag("raw")
    ask = None
    prepared: Prepared | None = None
    if raw and fields.text("prompt", ""):
        prepared = await _raw(fields, served)
    elif fields.list("messages") if chats else fields.text("prompt", ""):
        conversation = (read_chat if chats else read_prompt)(fields, served)
        prepared = await prepare(served, conversation)
    if prepared is not None:
        ask = Ask(
            tokens=prepared.tokens,
            params=params,
            logprobs=top if logprobs else None,
            grammar=prepared.grammar,
            syntax=prepared.syntax,
            goes_on=prepared.goes_on,
            key=key,
            weight=weight,
        )
    return OllamaRequest(
        ask=ask, chats=chats, streams=fields.flag("stream", True), logprobs=logprobs
    )


def check_model(fields: Fields, served: Served) -> None:
    """``ApiError`` 404 for a model that is not here. Ollama's names end in a tag."""
    name = fields.text("model", fields.text("name", "") or None)
    if name.removesuffix(_TAG) != served.name.removesuffix(_TAG) and not served.any_name:
        raise ApiError(404, f"model {name[:100]!r} not found; this server has {served.name!r}")


def _refuse(fields: Fields) -> None:
    """What Ollama knows and this server does not."""
    fields.refuse("images", [], why="this model reads text alone")
    fields.refuse("suffix", "", why="this model is not asked to fill gaps")
    fields.refuse("template", "", why="the model's own is used; set raw to write the whole prompt")
    fields.refuse("context", [], why="send the earlier turns as messages, to /api/chat")
    fields.refuse("truncate", False, why="nothing is ever left out of a prompt here")
    fields.refuse("shift", False, why="nothing is ever left out of a prompt here")
    for name in ("width", "height", "steps"):
        fields.refuse(name, 0, why="this model makes no images")


async def _raw(fields: Fields, served: Served) -> Prepared:
    text, form, grammar = fields.text("prompt"), read_form(fields), ""
    tokens = tuple(await asyncio.to_thread(served.tokenizer.encode, text))
    if len(tokens) >= served.context:
        raise too_long(len(tokens), served.context, "prompt")
    if form is not None:
        grammar = await hold(served, Wanted(form=form, tools={}), PLAIN)
    return Prepared(tokens=tokens, grammar=grammar, syntax=PLAIN, goes_on=True)
