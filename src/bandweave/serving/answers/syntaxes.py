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
    ("apriel", ("<tool_calls>[",)),
    ("seed", ("<seed:tool_call>", "<function=")),
    ("deepseek_v4", ("｜DSML｜", "tool_calls>")),
    ("deepseek_v32", ("｜DSML｜", "function_calls")),
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
    ("lfm2", ("<|tool_call_start|>",)),
    ("lfm2", ("<|tool_list_start|>",)),
    ("gemma4", ("<|tool_call>", "<tool_call|>")),
    ("llama4", ("<|python_start|>",)),
    ("hermes", ("<tool_call>",)),
    ("minimax_m1", ("<tool_calls>", "<end_of_sentence>")),
    ("nemotron", ("<TOOLCALL>",)),
    ("gigachat", ("<|function_call|>",)),
    ("functionary", ("<function=", "</function>")),
    ("llama3", ("<|python_tag|>",)),
    ("llama3", ('"parameters": ', "<|start_header_id|>")),
)

#: What stands around thoughts; the first that fits counts.
_THOUGHTS = (
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|channel>thought", "<channel|>"),
    ("<think>", "</think>"),
)

#: Names by which templates know whether the model shall think, and which tools there are.
_SWITCHES = ("enable_thinking", "thinking")
_TOOLS = ("tools", "xml_tools")
_EFFORT = "reasoning_effort"
#: Llama's templates refuse a history in which one answer has several calls.
_SINGLE = "only supports single tool-calls"
_NINE = re.compile(r"length\s*!=\s*9|\b9\b.{0,40}alphanumeric|alphanumeric.{0,80}\b9\b", re.S)


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """The variables that a template knows: of ``tools``; the ``switches`` that say whether the
    model shall think; whether there is one for its ``effort``. ``short_ids``: it wants ids of calls
    of nine characters."""

    tools: tuple[str, ...]
    switches: tuple[str, ...]
    effort: bool
    short_ids: bool


def knowledge_of(template: ChatTemplate) -> Knowledge:
    known = template.variables
    return Knowledge(
        tools=tuple(name for name in _TOOLS if name in known),
        switches=tuple(name for name in _SWITCHES if name in known),
        effort=_EFFORT in known,
        short_ids=_NINE.search(template.source) is not None,
    )


def find_syntax(template: ChatTemplate | None) -> Syntax:
    """The syntax of a model by its template. The generic form of calls, where the template knows
    tools and writes calls in none of those that are known; none where it knows no tools."""
    if template is None:
        return PLAIN
    source = template.source
    form = _form(source)
    if form == "harmony":
        return Syntax(tools=form)
    tools: ToolForm = form if knowledge_of(template).tools else ""
    think_open, think_close = next(
        (pair for pair in _THOUGHTS if pair[0] in source and pair[1] in source), ("", "")
    )
    # Some templates only close what the model opens, or cut thoughts of earlier answers.
    if not think_open and "</think>" in source:
        think_open, think_close = "<think>", "</think>"
    most = 1 if _SINGLE in source else 0
    return Syntax(think_open=think_open, think_close=think_close, tools=tools, most_calls=most)


def _form(source: str) -> ToolForm:
    for form, signs in _SIGNS:
        if all(sign in source for sign in signs):
            return form
    return "hermes"
