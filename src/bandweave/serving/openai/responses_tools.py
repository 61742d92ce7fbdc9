"""Tools of ``/v1/responses``, and which of them the model may or must call.

Clients offer tools that OpenAI runs itself whether or not they are needed. Those are left out, as
the answer's own ``tools`` show.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from bandweave.serving.errors import bad, unsupported
from bandweave.serving.fields import Fields
from bandweave.serving.openai.responses_input import CUSTOM_INPUT

_MOST_TOOLS = 1024
_MODES = ("none", "auto", "required")
Choice = Literal["none", "auto", "required"]


@dataclass(frozen=True, kw_only=True)
class ResponsesTools:
    """``tools``, ``choice`` and ``named`` as ``Conversation`` has them. ``told``: what the answer
    says of its tools; ``custom``: those whose input is a text."""

    tools: list[dict[str, Any]] = field(default_factory=list)
    choice: Choice = "auto"
    named: str = ""
    told: list[dict[str, Any]] = field(default_factory=list)
    told_choice: Any = "auto"
    custom: frozenset[str] = frozenset()


def read_tools(fields: Fields) -> ResponsesTools:
    """``ApiError`` for a choice of what is not there."""
    told = [tool for one in fields.objects("tools", most=_MOST_TOOLS) if (tool := _told(one))]
    choice, named, allowed = _choice(fields, {tool["name"] for tool in told})
    return ResponsesTools(
        tools=[_offered(tool) for tool in told if allowed is None or tool["name"] in allowed],
        choice=choice,
        named=named,
        told=told,
        told_choice=fields.any("tool_choice") or "auto",
        custom=frozenset(tool["name"] for tool in told if tool["type"] == "custom"),
    )


def _told(fields: Fields) -> dict[str, Any] | None:
    """None for a tool that is left out: one that OpenAI runs, and one whose input has a grammar,
    to which a call could not be held."""
    kind = fields.text("type")
    if kind == "function":
        parameters = fields.object("parameters")
        return {
            "type": "function",
            "name": fields.text("name"),
            "description": fields.text("description", ""),
            "parameters": dict(parameters.values) if parameters else {},
            "strict": fields.flag("strict", False),
        }
    if kind == "custom":
        form = fields.object("format")
        if form is None or form.text("type") == "text":
            return {
                "type": "custom",
                "name": fields.text("name"),
                "description": fields.text("description", ""),
                "format": {"type": "text"},
            }
    return None


def _offered(tool: dict[str, Any]) -> dict[str, Any]:
    function = {"name": tool["name"], "description": tool["description"]}
    if tool["type"] == "custom":
        properties = {CUSTOM_INPUT: {"type": "string"}}
        function["parameters"] = {
            "type": "object", "properties": properties, "required": [CUSTOM_INPUT],
            "additionalProperties": False,
        }  # fmt: skip
    else:
        # Templates write what they are given: a tool without parameters has an object without any.
        function["parameters"] = tool["parameters"] or {"type": "object", "properties": {}}
        if tool["strict"]:
            function["strict"] = True
    return {"type": "function", "function": function}


def _choice(fields: Fields, names: set[str]) -> tuple[Choice, str, set[str] | None]:
    """The choice, the tool that it names, and the tools that it allows, None for all."""
    given = fields.any("tool_choice")
    if given is None:
        return "auto", "", None
    if isinstance(given, str):
        mode = fields.one_of("tool_choice", _MODES)
        return _mode(mode, names), "", None
    chosen = Fields(given, "tool_choice")
    kind = chosen.text("type")
    if kind in ("function", "custom"):
        return "required", _known(chosen, names), None
    if kind == "allowed_tools":
        mode = chosen.one_of("mode", ("auto", "required"))
        allowed = {
            _known(one, names)
            for one in chosen.objects("tools")
            if one.text("type") in ("function", "custom")
        }
        return _mode(mode, allowed), "", allowed
    raise unsupported("tool_choice.type", f"this server runs no {kind[:60]!r}")


def _mode(mode: str, names: set[str]) -> Choice:
    if mode == "required" and not names:
        raise bad("tool_choice wants a tool to be called; give functions", "tool_choice")
    return "required" if mode == "required" else "none" if mode == "none" else "auto"


def _known(fields: Fields, names: set[str]) -> str:
    name = fields.text("name")
    if name not in names:
        raise bad(f"{fields.name('name')} is {name[:80]!r}, but no tool has that name",
                  fields.name("name"))  # fmt: skip
    return name
