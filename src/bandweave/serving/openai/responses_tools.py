"""Tools of ``/v1/responses``, and which of them the model may or must call.

Clients offer tools that OpenAI runs itself whether or not they are needed. Those are left out, as
the answer's own ``tools`` show. Models know no namespaces: tools of one stand in one list with the
others, by names of their own, and calls of them are told by the client's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bandweave.serving.errors import bad, unsupported
from bandweave.serving.fields import Fields
from bandweave.serving.openai.responses_input import CUSTOM_INPUT, offered_name

_MOST_TOOLS = 1024
_MODES = ("none", "auto", "required")
_CALLED = ("function", "custom")
Choice = Literal["none", "auto", "required"]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What the client calls a tool, and whether its input is a text."""

    name: str
    namespace: str = ""
    custom: bool = False


@dataclass(frozen=True, kw_only=True)
class ResponsesTools:
    """``tools``, ``choice`` and ``named`` as ``Conversation`` has them. ``told``: what the answer
    says of its tools; ``origins``: the client's names of them, by those that the model knows."""

    tools: list[dict[str, Any]] = field(default_factory=list)
    choice: Choice = "auto"
    named: str = ""
    told: list[dict[str, Any]] = field(default_factory=list)
    told_choice: Any = "auto"
    origins: Mapping[str, Origin] = field(default_factory=dict)


def read_tools(fields: Fields) -> ResponsesTools:
    """``ApiError`` for a choice of what is not there, and for two tools of one name."""
    told: list[dict[str, Any]] = []
    tools: dict[str, dict[str, Any]] = {}
    origins: dict[str, Origin] = {}
    for one in _given(fields):
        entry, found = _read(one)
        told += [entry] if entry else []
        for offered, origin in found:
            name = offered["name"]
            if name in tools:
                raise bad(f"{one.path}: there are two tools called {name[:80]!r}", "tools")
            tools[name], origins[name] = {"type": "function", "function": offered}, origin
        if len(tools) > _MOST_TOOLS:
            raise bad(f"there are more than {_MOST_TOOLS} tools", "tools")
    choice, named, allowed = _choice(fields, origins)
    return ResponsesTools(
        tools=[tool for name, tool in tools.items() if allowed is None or name in allowed],
        choice=choice,
        named=named,
        told=told,
        told_choice=fields.any("tool_choice") or "auto",
        origins=origins,
    )


def _given(fields: Fields) -> Iterator[Fields]:
    """Those of the request, and those that stand in its input."""
    yield from fields.objects("tools", most=_MOST_TOOLS)
    if isinstance(fields.any("input"), list):
        for item in fields.objects("input"):
            if item.any("type") == "additional_tools":
                yield from item.objects("tools", most=_MOST_TOOLS)


def _read(fields: Fields) -> tuple[dict[str, Any] | None, list[tuple[dict[str, Any], Origin]]]:
    """What the answer says of it, and the functions that the model is offered. None and none for
    one that is left out, for OpenAI runs it."""
    if fields.text("type") != "namespace":
        one = _tool(fields, "")
        return (None, []) if one is None else (one[0], [one[1:]])
    name, description = fields.text("name"), fields.text("description", "")
    inner = [_tool(one, name) for one in fields.objects("tools", most=_MOST_TOOLS)]
    known = [one for one in inner if one is not None]
    told = {"type": "namespace", "name": name, "description": description,
            "tools": [one[0] for one in known]}  # fmt: skip
    if known and description:  # once: it may be long
        first = known[0][1]
        first["description"] = f"{description}\n\n{first['description']}".rstrip()
    return told, [one[1:] for one in known]


def _tool(
    fields: Fields, namespace: str
) -> tuple[dict[str, Any], dict[str, Any], Origin] | None:  # fmt: skip
    """As the answer tells it, as the model is offered it, and what the client calls it."""
    kind = fields.text("type")
    if kind not in _CALLED:
        return None
    fields.refuse("allowed_callers", ["direct"], why="the model alone calls tools")
    name, description = fields.text("name"), fields.text("description", "")
    told: dict[str, Any] = {"type": kind, "name": name, "description": description}
    offered: dict[str, Any] = {"name": offered_name(namespace, name), "description": description}
    if kind == "function":
        given = fields.object("parameters")
        parameters = {} if given is None else dict(given.values)
        told |= {"parameters": parameters, "strict": fields.flag("strict", False)}
        # Templates write what they are given: a tool without parameters has an object without any.
        offered["parameters"] = parameters or {"type": "object", "properties": {}}
        if told["strict"]:
            offered["strict"] = True
    else:
        told["format"] = _format(fields)
        if told["format"]["type"] == "grammar":
            offered["description"] = _with_grammar(description, told["format"])
        properties = {CUSTOM_INPUT: {"type": "string"}}
        offered["parameters"] = {
            "type": "object", "properties": properties, "required": [CUSTOM_INPUT],
            "additionalProperties": False,
        }  # fmt: skip
    home = namespace if offered["name"] != name else ""
    return told, offered, Origin(name=name, namespace=home, custom=kind == "custom")


def _format(fields: Fields) -> dict[str, Any]:
    """Of a custom tool's input."""
    form = fields.object("format")
    if form is None or form.one_of("type", ("text", "grammar")) == "text":
        return {"type": "text"}
    return {"type": "grammar", "syntax": form.one_of("syntax", ("lark", "regex")),
            "definition": form.text("definition")}  # fmt: skip


def _with_grammar(description: str, form: Mapping[str, Any]) -> str:
    """The model reads the grammar. It is not held to it: models write an input as JSON, within
    which no other grammar holds."""
    kind = "regular expression" if form["syntax"] == "regex" else "Lark grammar"
    return f"{description}\n\nThe input must match this {kind}:\n\n{form['definition']}".lstrip()


def _choice(
    fields: Fields, origins: Mapping[str, Origin]
) -> tuple[Choice, str, frozenset[str] | None]:
    """The choice, the tool that it names, and the tools that it allows, None for all."""
    given = fields.any("tool_choice")
    if given is None:
        return "auto", "", None
    if isinstance(given, str):
        mode = fields.one_of("tool_choice", _MODES)
        return _mode(mode, frozenset(origins)), "", None
    chosen = Fields(given, "tool_choice")
    kind = chosen.text("type")
    if kind in _CALLED:
        return "required", _known(chosen, origins), None
    if kind == "allowed_tools":
        mode = chosen.one_of("mode", ("auto", "required"))
        allowed = frozenset(
            name for one in chosen.objects("tools") for name in _allowed(one, origins)
        )
        return _mode(mode, allowed), "", allowed
    raise unsupported("tool_choice.type", f"this server runs no {kind[:60]!r}")


def _allowed(fields: Fields, origins: Mapping[str, Origin]) -> list[str]:
    kind = fields.text("type")
    if kind == "namespace":
        name = fields.text("name")
        found = [offered for offered, origin in origins.items() if origin.namespace == name]
        if not found:
            raise bad(f"{fields.name('name')} is {name[:80]!r}, but no namespace has that name",
                      fields.name("name"))  # fmt: skip
        return found
    return [_known(fields, origins)] if kind in _CALLED else []


def _mode(mode: str, names: frozenset[str]) -> Choice:
    if mode == "required" and not names:
        raise bad("tool_choice wants a tool to be called; give functions", "tool_choice")
    return "required" if mode == "required" else "none" if mode == "none" else "auto"


def _known(fields: Fields, origins: Mapping[str, Origin]) -> str:
    """By its name for the model."""
    name = fields.text("name")
    offered = offered_name(fields.text("namespace", ""), name)
    if offered not in origins:
        raise bad(f"{fields.name('name')} is {name[:80]!r}, but no tool has that name",
                  fields.name("name"))  # fmt: skip
    return offered
