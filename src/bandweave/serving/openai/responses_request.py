"""``/v1/responses``: the fields of a request. Nothing is kept from one request to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bandweave.serving.answers.ask import Ask
from bandweave.serving.answers.conversation import Conversation, prepare
from bandweave.serving.answers.grammars import Form
from bandweave.serving.answers.served import Served
from bandweave.serving.errors import bad
from bandweave.serving.fields import Fields
from bandweave.serving.openai.foreign import read_salt
from bandweave.serving.openai.responses_input import read_input
from bandweave.serving.openai.responses_tools import Origin, ResponsesTools, read_tools
from bandweave.serving.sampling import read_sampling
from bandweave.shown import shown

_MOST_TOKENS = (1 << 31) - 1
_MOST_LOGPROBS = 20
_MOST_METADATA = 16
_SEALED, _LOGPROBS = "reasoning.encrypted_content", "message.output_text.logprobs"
# The others tell of tools that are never run here.
_INCLUDED = (
    _SEALED, _LOGPROBS, "file_search_call.results", "web_search_call.results",
    "web_search_call.action.sources", "message.input_image.image_url",
    "computer_call_output.output.image_url", "code_interpreter_call.outputs",
)  # fmt: skip
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_SUMMARIES = ("auto", "concise", "detailed")
_NOT_KEPT = "answers are not kept here; send the whole conversation as input"


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the model is to read: the conversation, and its tools as the answer tells of them."""

    conversation: Conversation
    tools: ResponsesTools


@dataclass(frozen=True, kw_only=True)
class ResponsesRequest:
    """A request that can be asked. ``told``: what the answer repeats of it. ``summarises``: the
    thoughts are given where clients look for summaries; ``seals``: and packed, for the next
    request. ``logprobs``: whether they are told. ``origins``: the client's names of its tools."""

    ask: Ask
    streams: bool
    told: dict[str, Any]
    summarises: bool
    seals: bool
    logprobs: bool
    origins: Mapping[str, Origin]


async def read_request(fields: Fields, served: Served, key: str, weight: float) -> ResponsesRequest:
    """``ApiError`` for what cannot be asked."""
    question = read_question(fields, served)
    _refuse(fields)
    included = fields.list("include")
    for name in included:
        if name not in _INCLUDED:
            raise bad(f"include has {str(name)[:60]!r}; it must be one of {', '.join(_INCLUDED)}",
                      "include")  # fmt: skip
    top = fields.integer("top_logprobs", 0, 0, _MOST_LOGPROBS)
    logprobs = _LOGPROBS in included or top > 0
    limit = None
    if fields.has("max_output_tokens"):
        limit = fields.integer("max_output_tokens", None, 1, _MOST_TOKENS)
    prepared = await prepare(served, question.conversation)
    params = read_sampling(fields, served, limit=limit)
    reasoning = fields.object("reasoning")
    told = _told(fields, question.tools)
    told |= {"max_output_tokens": limit, "temperature": params.temperature, "top_p": params.top_p,
             "top_logprobs": top}  # fmt: skip
    return ResponsesRequest(
        ask=Ask(
            tokens=prepared.tokens,
            params=params,
            logprobs=top if logprobs else None,
            grammar=prepared.grammar,
            syntax=prepared.syntax,
            key=key,
            weight=weight,
            salt=read_salt(fields),
        ),
        streams=fields.flag("stream"),
        told=told,
        summarises=reasoning is not None and _summary(reasoning) is not None,
        seals=_SEALED in included,
        logprobs=logprobs,
        origins=question.tools.origins,
    )


def read_question(fields: Fields, served: Served) -> Question:
    """What the model is to read, without what is to be done with its answer."""
    served.check_name(fields.text("model", served.name))
    for name in ("previous_response_id", "conversation"):
        fields.refuse(name, why=_NOT_KEPT)
    fields.refuse("prompt", why="templates are not kept here; send the instructions and the input")
    fields.refuse("truncation", "disabled", why="nothing is ever left out of a prompt here")
    effort = ""
    if fields.has("reasoning_effort"):  # as Open WebUI has it in responses, too
        effort = fields.one_of("reasoning_effort", _EFFORTS)
    reasoning = fields.object("reasoning")
    if reasoning is not None:
        reasoning.refuse("context", "auto", "current_turn")
        reasoning.refuse("mode", "standard")
        if reasoning.has("effort"):
            effort = reasoning.one_of("effort", _EFFORTS)
    tools = read_tools(fields)
    return Question(
        conversation=Conversation(
            messages=read_input(fields),
            tools=tools.tools,
            choice=tools.choice,
            named=tools.named,
            parallel=fields.flag("parallel_tool_calls", True),
            form=_form(fields),
            effort=effort,
        ),
        tools=tools,
    )


def _refuse(fields: Fields) -> None:
    """What OpenAI knows and this server does not."""
    fields.refuse("background", False, why="an answer comes while the client waits for it")
    fields.refuse("context_management", [], why="nothing is ever left out of a prompt here")
    fields.refuse("moderation")
    fields.refuse("prompt_cache_retention", "in_memory", why="the cache is in memory")
    fields.refuse("prompt_cache_options", why="prefixes are found in the cache without being asked")
    options = fields.object("stream_options")
    if options is not None:
        options.refuse("include_obfuscation", False)
    fields.flag("store", True)  # either way nothing is, as the answer says


def _form(fields: Fields) -> Form | None:
    text = fields.object("text")
    if text is None:
        return None
    text.refuse("verbosity", "medium", why="say in the instructions how long answers shall be")
    form = text.object("format")
    if form is None:
        return None
    kind = form.one_of("type", ("text", "json_object", "json_schema"))
    if kind == "text":
        return None
    if kind == "json_object":
        return Form(kind="json", field="text.format")
    schema = form.any("schema")
    if not isinstance(schema, (dict, bool)):
        raise bad("text.format.schema must be a JSON schema", "text.format.schema")
    return Form(kind="schema", value=schema, field="text.format.schema")


def _told(fields: Fields, tools: ResponsesTools) -> dict[str, Any]:
    """What an answer repeats."""
    text = fields.object("text")
    form = text.any("format") if text is not None else None
    reasoning = fields.object("reasoning")
    return {
        "background": False,
        "instructions": fields.any("instructions"),
        "max_tool_calls": fields.integer("max_tool_calls", 0) or None,
        "metadata": _metadata(fields),
        "parallel_tool_calls": fields.flag("parallel_tool_calls", True),
        "previous_response_id": None,
        "prompt_cache_key": _optional_text(fields, "prompt_cache_key"),
        "reasoning": {
            "effort": reasoning.any("effort") if reasoning is not None else None,
            "summary": _summary(reasoning) if reasoning is not None else None,
        },
        "safety_identifier": _optional_text(fields, "safety_identifier"),
        "service_tier": "default",
        "store": False,
        "text": {"format": form or {"type": "text"}},
        "tool_choice": tools.told_choice,
        "tools": tools.told,
        "truncation": "disabled",
        "user": _optional_text(fields, "user"),
    }


def _summary(reasoning: Fields) -> str | None:
    for name in ("summary", "generate_summary"):
        if reasoning.has(name):
            return reasoning.one_of(name, _SUMMARIES)
    return None


def _metadata(fields: Fields) -> dict[str, Any]:
    given = fields.object("metadata")
    if given is None:
        return {}
    if len(given.values) > _MOST_METADATA:
        raise bad(f"metadata has {len(given.values)} pairs; there may be {_MOST_METADATA}",
                  "metadata")  # fmt: skip
    for name, value in given.values.items():
        if not isinstance(value, str):
            raise bad(f"metadata: {shown(name)} must be a string, not {shown(value)}", "metadata")
    return dict(given.values)


def _optional_text(fields: Fields, name: str) -> str | None:
    return fields.text(name) if fields.has(name) else None
