"""Syntaxes: how a model writes thoughts and calls, found in the source of its chat template.

A template shows the model its own earlier calls, so the literals of a form stand in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bandweave.serving.answers.syntax import PLAIN, Syntax, ToolForm
from bandweave.text.chat_template import ChatTemplate

#: Literals that all stand in the source of a template of a form; the first that fits counts.
_SIGNS: tuple[tuple[ToolForm, tuple[str, ...]], ...] = (
    ("harmony", ("<|channel|>", "<|message|>", "commentary")),
    ("minimax", ("<minimax:tool_call>", "<invoke name=")),
    ("glm", ("<tool_call>", "<arg_key>", "<arg_value>")),
    ("qwen_xml", ("<tool_call>", "<function=", "<parameter=")),
    ("kimi", ("<|tool_calls_section_begin|>", "<|tool_call_argument_begin|>")),
    ("deepseek", ("<｜tool▁calls▁begin｜>", "<｜tool▁sep｜>", "```json")),
    ("deepseek_v31", ("<｜tool▁calls▁begin｜>", "<｜tool▁sep｜>")),
    ("mistral_named", ("[TOOL_CALLS]", "[ARGS]")),
    ("mistral", ("[TOOL_CALLS]",)),
    ("cohere", ("<|START_ACTION|>", "<|END_ACTION|>", "tool_name")),
    ("phi4", ("<|tool_call|>", "<|/tool_call|>")),
    ("granite", ("<|tool_call|>",)),
    ("hermes", ("<tool_call>",)),
    ("llama3", ("<|python_tag|>",)),
    ("llama3", ('"parameters": ', "<|start_header_id|>")),
)

#: What stands around thoughts; the first that fits counts.
_THOUGHTS = (
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<think>", "</think>"),
)

#: Names by which templates know whether the model shall think.
_SWITCHES = ("enable_thinking", "thinking")
_EFFORT = "reasoning_effort"
_NINE = re.compile(r"length\s*!=\s*9|\b9\b.{0,40}alphanumeric|alphanumeric.{0,80}\b9\b", re.S)


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """What a template knows: ``tools``; the ``switches`` that say whether the model shall think;
    how much ``effort`` it shall take. ``short_ids``: it wants ids of calls of nine characters."""

    tools: bool
    switches: tuple[str, ...]
    effort: bool
    short_ids: bool


def knowledge_of(template: ChatTemplate) -> Knowledge:
    source = template.source
    return Knowledge(
        tools=_mentions(source, "tools"),
        switches=tuple(name for name in _SWITCHES if _mentions(source, name)),
        effort=_mentions(source, _EFFORT),
        short_ids=_NINE.search(source) is not None,
    )


def find_syntax(template: ChatTemplate | None) -> Syntax:
    """The syntax of a model by its template. The generic form of calls, where the template knows
    tools and writes calls in none of those that are known; none where it knows no tools."""
    if template is None:
        return PLAIN
    source = template.source
    tools: ToolForm = ""
    if _mentions(source, "tools"):
        tools = next(
            (form for form, signs in _SIGNS if all(sign in source for sign in signs)), "hermes"
        )
    elif all(sign in source for sign in _SIGNS[0][1]):
        tools = "harmony"
    if tools == "harmony":
        return Syntax(tools=tools)
    think_open, think_close = next(
        (pair for pair in _THOUGHTS if pair[0] in source and pair[1] in source), ("", "")
    )
    # Some templates only close what the model opens, or cut thoughts of earlier answers.
    if not think_open and "</think>" in source:
        think_open, think_close = "<think>", "</think>"
    return Syntax(think_open=think_open, think_close=think_close, tools=tools)


def _mentions(source: str, name: str) -> bool:
    """Whether a template uses a variable: outside of quotes, as far as can be seen."""
    return re.search(rf"(?<![\w'\".\-]){name}(?![\w'\"\-])", source) is not None
