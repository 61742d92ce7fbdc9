"""Tools of OpenAI's chats, and which of them shall be called."""

from __future__ import annotations

from typing import Any, Literal

from bandweave.serving.errors import bad, unsupported
from bandweave.serving.fields import Fields

_MOST_TOOLS = 1024
Choice = Literal["none", "auto", "required"]


def read_tools(fields: Fields) -> tuple[dict[str, Any], ...]:
    """``functions``, the older form, too."""
    tools = tuple(_tool(one) for one in fields.objects("tools", most=_MOST_TOOLS))
    if tools:
        return tools
    return tuple(
        {"type": "function", "function": read_function(one)}
        for one in fields.objects("functions", most=_MOST_TOOLS)
    )


def _tool(fields: Fields) -> dict[str, Any]:
    kind = fields.text("type", "function")
    if kind != "function":
        raise unsupported(fields.name("type"), f"tools are functions here, not {kind[:40]!r}")
    function = fields.need("function")
    return {"type": "function", "function": read_function(function)}


def read_function(fields: Fields, parameters: str = "parameters") -> dict[str, Any]:
    """``parameters``: the name of the field that has their schema."""
    found: dict[str, Any] = {"name": fields.text("name")}
    found["description"] = fields.text("description", "")
    schema = fields.object(parameters)
    # Templates write what they are given: a tool without parameters has an object without any.
    found["parameters"] = (
        {"type": "object", "properties": {}} if schema is None else dict(schema.values)
    )
    if fields.flag("strict"):
        found["strict"] = True
    return found


def read_choice(fields: Fields) -> tuple[Choice, str]:
    """Which are called: at all, and the one by its name."""
    name = "tool_choice" if fields.has("tool_choice") else "function_call"
    value = fields.any(name)
    if value is None:
        return "auto", ""
    if value in ("none", "auto", "required"):
        return value, ""
    chosen = fields.object(name) if isinstance(value, dict) else None
    if chosen is None:
        raise bad(f"{name} must be none, auto, required, or an object that names a function", name)
    if name == "function_call":
        return "required", chosen.text("name")
    kind = chosen.text("type", "function")
    if kind != "function":
        raise unsupported(f"{name}.type", f"it may be function here, not {kind[:40]!r}")
    function = chosen.object("function")
    return "required", (function or chosen).text("name")
