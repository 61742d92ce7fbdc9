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
    typed: bool = False  # behind a key stands whether its value is a text: true or false, and ">


@dataclass(frozen=True, kw_only=True)
class CodeForm:
    """Calls are written as in a program, between ``open`` and ``close``, so that they are known
    when they are complete. ``bare``: both may be missing, and calls come only at the start.
    ``quote``: what stands around strings, empty for Python's language."""

    open: str
    close: str
    bare: bool = False
    quote: str = ""


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


Form = JsonForm | HeadedForm | TaggedForm | CodeForm | ChannelForm


def _functions(open: str, close: str, *, padded: bool = False) -> TaggedForm:
    """Qwen3-Coder's tags, which others took over."""
    return TaggedForm(
        open=open,
        close=close,
        call_open="<function=",
        name_close=">",
        key_open="<parameter=",
        key_close=">",
        value_close="</parameter>",
        call_close="</function>",
        padded=padded,
    )


def _dsml(around: str) -> TaggedForm:
    """DeepSeek's later form, with what stands around all calls."""
    return TaggedForm(
        open=f"<｜DSML｜{around}>",
        close=f"</｜DSML｜{around}>",
        call_open='<｜DSML｜invoke name="',
        name_close='">',
        key_open='<｜DSML｜parameter name="',
        key_close='" string="',
        typed=True,
        value_close="</｜DSML｜parameter>",
        call_close="</｜DSML｜invoke>",
    )


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
            open="<｜tool▁calls▁begin｜>",
            close="<｜tool▁calls▁end｜>",
            call_open="<｜tool▁call▁begin｜>",
            call_close="<｜tool▁call▁end｜>",
            before_name="function<｜tool▁sep｜>",
            behind_name="\n",
            args_open="```json\n",
            args_close="\n```",
            between="\n",
        ),
        "deepseek_v31": HeadedForm(
            open="<｜tool▁calls▁begin｜>",
            close="<｜tool▁calls▁end｜>",
            call_open="<｜tool▁call▁begin｜>",
            call_close="<｜tool▁call▁end｜>",
            args_open="<｜tool▁sep｜>",
        ),
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
        "qwen_xml": _functions("<tool_call>", "</tool_call>", padded=True),
        "seed": _functions("<seed:tool_call>", "</seed:tool_call>"),
        "deepseek_v32": _dsml("function_calls"),
        "deepseek_v4": _dsml("tool_calls"),
        "apriel": JsonForm(open="<tool_calls>", close="</tool_calls>", listed=True),
        "minimax_m1": JsonForm(open="<tool_calls>", close="</tool_calls>", space="\n"),
        "nemotron": JsonForm(open="<TOOLCALL>", close="</TOOLCALL>", listed=True),
        "gigachat": JsonForm(open="<|function_call|>"),
        "functionary": HeadedForm(call_open="<function=", args_open=">", call_close="</function>"),
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
        "lfm2": CodeForm(open="<|tool_call_start|>", close="<|tool_call_end|>"),
        "llama4": CodeForm(open="<|python_start|>", close="<|python_end|>", bare=True),
        "gemma4": CodeForm(open="<|tool_call>", close="<tool_call|>", quote='<|"|>'),
        "harmony": ChannelForm(),
    }
)
