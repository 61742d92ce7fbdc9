"""Anthropic's tools, and which of them the model may or must call."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from bandweave.serving.errors import bad, unsupported
from bandweave.serving.fields import Fields

_MOST_TOOLS = 1024
_CHOICES: dict[str, Literal["none", "auto", "required"]] = {
    "none": "none",
    "auto": "auto",
    "any": "required",
    "tool": "required",
}


@dataclass(frozen=True, kw_only=True)
class Tools:
    """As ``Conversation`` has them."""

    tools: list[dict[str, Any]]
    choice: Literal["none", "auto", "required"] = "auto"
    named: str = ""
    parallel: bool = True


def read_tools(fields: Fields, found: Collection[str]) -> Tools:
    """``ApiError`` for tools that are Anthropic's own: nobody here knows what they do. Of those
    whose loading is deferred the model sees the ones that a client's search has ``found``."""
    listed = [(_tool(one), one.flag("defer_loading")) for one in
              fields.objects("tools", most=_MOST_TOOLS)]  # fmt: skip
    known = {tool["function"]["name"] for tool, _ in listed}
    if lost := next((name for name in found if name not in known), None):
        raise bad(f"messages: a tool_reference names {lost[:80]!r}, but no tool has that name",
                  "messages")  # fmt: skip
    tools = [tool for tool, late in listed if not late or tool["function"]["name"] in found]
    given = fields.object("tool_choice")
    if given is None:
        return Tools(tools=tools)
    kind = given.one_of("type", tuple(_CHOICES))
    names = [tool["function"]["name"] for tool in tools]
    named = given.text("name") if kind == "tool" else ""
    if named and named not in names:
        raise bad(f"tool_choice names {named[:80]!r}, but no tool has that name", "tool_choice")
    if kind in ("any", "tool") and not names:
        raise bad("tool_choice wants a tool to be called; give tools", "tool_choice")
    return Tools(
        tools=tools,
        choice=_CHOICES[kind],
        named=named,
        parallel=not given.flag("disable_parallel_tool_use"),
    )


def _tool(fields: Fields) -> dict[str, Any]:
    kind = fields.text("type", "custom")
    if kind != "custom":
        raise unsupported(
            fields.name("type"),
            f"a {kind[:60]!r} is Anthropic's; give tools that have an input_schema",
        )
    fields.refuse("allowed_callers", ["direct"], why="the model alone calls tools")
    fields.refuse("input_examples", [], why="give them in the description")
    schema = fields.need("input_schema")
    function: dict[str, Any] = {
        "name": fields.text("name"),
        "description": fields.text("description", ""),
        "parameters": dict(schema.values),
    }
    if fields.flag("strict"):
        function["strict"] = True
    return {"type": "function", "function": function}
