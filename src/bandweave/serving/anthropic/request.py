"""``/v1/messages``: the fields of a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bandweave.serving.answers.ask import Ask
from bandweave.serving.answers.conversation import Conversation, prepare
from bandweave.serving.answers.grammars import Form
from bandweave.serving.answers.served import Served
from bandweave.serving.answers.thought_budget import with_budget
from bandweave.serving.anthropic.messages import forget_thoughts, found_tools, read_messages
from bandweave.serving.anthropic.tools import read_tools
from bandweave.serving.errors import bad, unsupported
from bandweave.serving.fields import Fields
from bandweave.serving.sampling import read_sampling

_MOST_TOKENS = (1 << 31) - 1
_LEAST_BUDGET = 1024
_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_CLEAR_THOUGHTS = "clear_thinking_20251015"


@dataclass(frozen=True, kw_only=True)
class MessagesRequest:
    """A request that can be asked. ``omits``: thoughts are not shown, only signed."""

    ask: Ask
    streams: bool
    omits: bool


async def read_request(fields: Fields, served: Served, key: str, weight: float) -> MessagesRequest:
    """``ApiError`` for what cannot be asked."""
    limit = fields.integer("max_tokens", None, 1, _MOST_TOKENS)
    conversation = read_conversation(fields, served)
    prepared = await prepare(served, conversation)
    thinking = fields.object("thinking")
    grammar, budget = prepared.grammar, _budget(thinking, limit)
    # An answer that ends before its thoughts would have to needs nobody to end them.
    room = min(limit, served.context - len(prepared.tokens))
    if budget is not None and served.can_think and budget < room - 1:
        grammar = await with_budget(served, prepared, budget, "thinking.budget_tokens")
    return MessagesRequest(
        ask=Ask(
            tokens=prepared.tokens,
            params=read_sampling(fields, served, limit=limit, stop="stop_sequences"),
            grammar=grammar,
            syntax=prepared.syntax,
            goes_on=prepared.goes_on,
            key=key,
            weight=weight,
        ),
        streams=fields.flag("stream"),
        omits=thinking is not None and thinking.text("display", "summarized") == "omitted",
    )


def read_conversation(fields: Fields, served: Served) -> Conversation:
    """What the model is to read, without what is to be done with its answer."""
    served.check_name(fields.text("model"))
    _refuse(fields)
    messages = read_messages(fields)
    _edit(fields, messages)
    tools = read_tools(fields, found_tools(fields))
    output = fields.object("output_config")
    effort = ""
    if output is not None:
        output.refuse("task_budget")
        if output.has("effort"):
            effort = output.one_of("effort", _EFFORTS)
    last = messages[-1]
    if last["role"] == "assistant" and last.get("tool_calls"):
        raise bad("the last of the messages calls tools; give their results in a message of the "
                  "user's", "messages")  # fmt: skip
    return Conversation(
        messages=messages,
        tools=tools.tools,
        choice=tools.choice,
        named=tools.named,
        parallel=tools.parallel,
        form=_form(fields, output),
        thinks=_thinks(fields, served),
        effort=effort,
        continues=last["role"] == "assistant",
    )


def _refuse(fields: Fields) -> None:
    """What Anthropic knows and this server does not."""
    fields.refuse("container")
    fields.refuse("mcp_servers", [], why="let the client call them")
    fields.refuse("fallbacks", [], why="there is one model here")
    fields.refuse("inference_geo", why="the model runs where this server was told to run it")
    fields.refuse("speed", "standard")
    if fields.has("service_tier"):  # either is what all requests get here
        fields.one_of("service_tier", ("auto", "standard_only"))
    if (metadata := fields.object("metadata")) is not None and metadata.has("user_id"):
        metadata.text("user_id")


def _form(fields: Fields, output: Fields | None) -> Form | None:
    """What the answer must look like; ``output_format`` is its older place."""
    given = output.object("format") if output is not None else None
    given = given or fields.object("output_format")
    if given is None:
        return None
    given.one_of("type", ("json_schema",))
    schema: Any = given.any("schema")
    if not isinstance(schema, (dict, bool)):
        raise bad(f"{given.name('schema')} must be a JSON schema", given.name("schema"))
    return Form(kind="schema", value=schema, field=given.name("schema"))


def _thinks(fields: Fields, served: Served) -> bool | None:
    """Adaptive is the model's own way, and a model that cannot think may use none of a budget."""
    thinking = fields.object("thinking")
    if thinking is None:
        return None
    kind = thinking.one_of("type", ("enabled", "disabled", "adaptive"))
    if thinking.has("display"):
        thinking.one_of("display", ("summarized", "omitted"))
    if kind == "disabled":
        return False
    return True if kind == "enabled" and served.can_think else None


def _budget(thinking: Fields | None, limit: int) -> int | None:
    """Tokens of thought; None where nobody says how many."""
    if thinking is None or thinking.text("type") != "enabled":
        return None
    budget = thinking.integer("budget_tokens", None, _LEAST_BUDGET, _MOST_TOKENS)
    if budget >= limit:
        raise bad(f"thinking.budget_tokens is {budget}; it must be below max_tokens ({limit})",
                  "thinking.budget_tokens")  # fmt: skip
    return budget


def _edit(fields: Fields, messages: list[dict[str, Any]]) -> None:
    """``context_management``: which thoughts of earlier turns the model still sees."""
    management = fields.object("context_management")
    if management is None:
        return
    for edit in management.objects("edits"):
        kind = edit.text("type")
        if kind != _CLEAR_THOUGHTS:
            raise unsupported(edit.name("type"), f"messages are not edited here by {kind[:60]!r}")
        if edit.any("keep") == "all":
            continue
        keep = edit.object("keep")
        forget_thoughts(messages, 1 if keep is None else keep.integer("value", None, 1))
