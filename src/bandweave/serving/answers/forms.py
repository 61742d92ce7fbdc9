"""Forms: how models write calls of tools, a description of each. Plain data.

From the chat templates of the models: a form is what they show the model of its own calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from bandweave.serving.answers.syntax import ToolForm


@dataclass(frozen=True, kw_only=True)
class JsonForm:
    """A call is a JSON object with a ``name`` and its ``arguments``, between ``open`` and
    ``close``. ``listed``: the objects stand in a list. ``bare``: ``open`` may be missing, and calls
    come only at the start of an answer, with ``between`` them."""

    open: str
    close: str = ""
    name: str = "name"
    arguments: str = "arguments"
    listed: bool = False
    bare: bool = False
    between: str = "\n"
    space: str = ""  # around an object, as the model writes it


@dataclass(frozen=True, kw_only=True)
class HeadedForm:
    """A call is a head with the tool's name, and its arguments as JSON. The head is
    ``before_name``, the name, ``behind_name`` and ``args_open``; around all calls stand ``open``
    and ``close``."""

    call_open: str
    args_open: str
    before_name: str = ""
    behind_name: str = ""
    numbered: bool = False  # the number of the call stands behind behind_name
    optional: bool = False  # behind_name begins what may be missing
    args_close: str = ""
    call_close: str = ""
    open: str = ""
    close: str = ""
    between: str = ""


@dataclass(frozen=True, kw_only=True)
class TaggedForm:
    """A call is the tool's name and its arguments one by one, each a key and a value as text:
    strings as they are, all else as JSON."""

    open: str
    close: str
    call_open: str
    name_close: str
    key_open: str
    key_close: str
    value_close: str
    value_open: str = ""
    call_close: str = ""
    space: str = "\n"  # between all of them, as the model writes it
    padded: bool = False  # a value stands on lines of its own


@dataclass(frozen=True, kw_only=True)
class ChannelForm:
    """The whole answer is messages: a head that names a channel and perhaps whom the message is
    to, and its text."""

    start: str = "<|start|>"
    channel: str = "<|channel|>"
    message: str = "<|message|>"
    constrain: str = "<|constrain|>"
    ends: tuple[str, ...] = ("<|end|>", "<|call|>", "<|return|>")
    to: str = "functions."


Form = JsonForm | HeadedForm | TaggedForm | ChannelForm

_DEEPSEEK = {
    "open": "<｜tool▁calls▁begin｜>",
    "close": "<｜tool▁calls▁end｜>",
    "call_open": "<｜tool▁call▁begin｜>",
    "call_close": "<｜tool▁call▁end｜>",
}

FORMS: Mapping[ToolForm, Form] = MappingProxyType(
    {
        "hermes": JsonForm(open="<tool_call>", close="</tool_call>", space="\n"),
        "phi4": JsonForm(open="<|tool_call|>", close="<|/tool_call|>", listed=True),
        "granite": JsonForm(open="<|tool_call|>", listed=True),
        "cohere": JsonForm(
            open="<|START_ACTION|>",
            close="<|END_ACTION|>",
            name="tool_name",
            arguments="parameters",
            listed=True,
        ),
        "llama3": JsonForm(open="<|python_tag|>", arguments="parameters", bare=True, between="; "),
        "mistral": JsonForm(open="[TOOL_CALLS]", listed=True),
        "mistral_named": HeadedForm(
            call_open="[TOOL_CALLS]", args_open="[ARGS]", behind_name="[CALL_ID]", optional=True
        ),
        "deepseek": HeadedForm(
            **_DEEPSEEK,
            before_name="function<｜tool▁sep｜>",
            behind_name="\n",
            args_open="```json\n",
            args_close="\n```",
            between="\n",
        ),
        "deepseek_v31": HeadedForm(**_DEEPSEEK, args_open="<｜tool▁sep｜>"),
        "kimi": HeadedForm(
            open="<|tool_calls_section_begin|>",
            close="<|tool_calls_section_end|>",
            call_open="<|tool_call_begin|>",
            call_close="<|tool_call_end|>",
            before_name="functions.",
            behind_name=":",
            numbered=True,
            args_open="<|tool_call_argument_begin|>",
        ),
        "qwen_xml": TaggedForm(
            open="<tool_call>",
            close="</tool_call>",
            call_open="<function=",
            name_close=">",
            key_open="<parameter=",
            key_close=">",
            value_close="</parameter>",
            call_close="</function>",
            padded=True,
        ),
        "minimax": TaggedForm(
            open="<minimax:tool_call>",
            close="</minimax:tool_call>",
            call_open='<invoke name="',
            name_close='">',
            key_open='<parameter name="',
            key_close='">',
            value_close="</parameter>",
            call_close="</invoke>",
        ),
        "glm": TaggedForm(
            open="<tool_call>",
            close="</tool_call>",
            call_open="",
            name_close="\n",
            key_open="<arg_key>",
            key_close="</arg_key>",
            value_open="<arg_value>",
            value_close="</arg_value>",
        ),
        "harmony": ChannelForm(),
    }
)
