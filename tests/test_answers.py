"""Answers: thoughts, calls and what is said are told apart, however the text is cut."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandweave.generation.request import Result, Timing
from bandweave.generation.sampling import SamplingParams
from bandweave.serving.answers.ask import Ask
from bandweave.serving.answers.choice import Choice
from bandweave.serving.answers.events import (
    CallArguments,
    CallBegun,
    End,
    Event,
    Text,
    Thought,
    TokenInfo,
)
from bandweave.serving.answers.forms import FORMS
from bandweave.serving.answers.marks import literals
from bandweave.serving.answers.splitter import Splitter
from bandweave.serving.answers.syntax import PLAIN, Syntax
from bandweave.serving.answers.syntaxes import find_syntax
from bandweave.text.chat_template import ChatTemplate
from bandweave.text.tokenizer import Tokenizer
from tests.helpers.chat_models import byte_tokenizer

SCHEMAS = {
    "f": {
        "type": "object",
        "properties": {
            "a": {"type": "string"},
            "n": {"type": "integer"},
            "o": {"type": "object"},
            "b": {"type": "boolean"},
            "m": {"type": ["string", "null"]},
            "r": {"$ref": "#/$defs/text"},
        },
        "$defs": {"text": {"type": "string"}},
    },
    "g": {"type": "object", "properties": {}},
}
THINKS: dict[str, Any] = {"think_open": "<think>", "think_close": "</think>"}


@dataclass
class Found:
    said: str = ""
    thought: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)


def found_in(events: Sequence[Event]) -> Found:
    found = Found()
    for event in events:
        if isinstance(event, Text):
            found.said += event.text
        elif isinstance(event, Thought):
            found.thought += event.text
        elif isinstance(event, CallBegun):
            assert event.call == len(found.calls)
            found.calls.append((event.name, ""))
            found.ids.append(event.id)
        elif isinstance(event, CallArguments):
            assert event.call == len(found.calls) - 1
            name, arguments = found.calls.pop()
            found.calls.append((name, arguments + event.text))
    return found


def split(syntax: Syntax, pieces: Sequence[str]) -> Found:
    splitter = Splitter(0, syntax)
    events: list[Event] = []
    for piece in pieces:
        events += splitter.push(piece, TokenInfo(7, piece.encode()))
    events += splitter.flush("")
    told = sum(len(one.tokens) for one in events if isinstance(one, (Text, Thought)))
    assert told == len(pieces)  # every token comes with one event
    return found_in(events)


def cut(text: str, chosen: random.Random) -> list[str]:
    size, pieces = chosen.randint(1, 9), list[str]()
    while text:
        length = chosen.randint(1, size)
        pieces.append(text[:length])
        text = text[length:]
    return pieces


def case(tools: Any, text: str, said: str, thought: str, *calls: tuple[str, Any], **more: Any):
    syntax = Syntax(tools=tools, schemas=SCHEMAS, **more)
    return pytest.param(syntax, text, said, thought, calls, id=f"{tools or 'plain'} {text[:24]!r}")


CASES = [
    case("", " <think> is\n text \n", " <think> is\n text \n", ""),
    case("", "<think>\nhm\n</think>\n\nyes \n", "yes \n", "hm", **THINKS),
    case("", "hm</think>yes", "yes", "hm", **THINKS, thinks=True),
    case("", "<think>hm</think>yes", "yes", "hm", **THINKS, thinks=True),
    case("", "hm", "", "hm", **THINKS, thinks=True),
    case("", "It is <think>\n", "It is <think>\n", "", **THINKS),
    case("", "<think>x</think>", "<think>x</think>", "", **THINKS, speaks=True),
    case(
        "hermes",
        '<think>hm</think>Let me see.\n<tool_call>\n{"name": "f", "arguments": {"a": "</tool_call>"'
        ', "n": [1, -2.5e3, null]}}\n</tool_call>\n<tool_call>{"arguments": {}, "name": "g"}',
        "Let me see.",
        "hm",
        ("f", {"a": "</tool_call>", "n": [1, -2500.0, None]}),
        ("g", {}),
        **THINKS,
    ),
    case(
        "hermes",
        'a <tool_call>{"name": "f", "arguments": {"a": }}</tool_call> b <tool_call> c',
        'a <tool_call>{"name": "f", "arguments": {"a": }}</tool_call> b <tool_call> c',
        "",
    ),
    case("hermes", '<tool_call>["f"]</tool_call>', '<tool_call>["f"]</tool_call>', ""),
    case("hermes", '<tool_call>{"name": "f"}</tool_call>', "", "", ("f", {})),
    case(
        "hermes",
        '<tool_call>{"name": "f", "arguments": "{\\"a\\": \\"x\\"}"}\n'
        '{"name": "g", "arguments": null}</tool_call>',
        "",
        "",
        ("f", {"a": "x"}),
        ("g", {}),
    ),
    case(
        "hermes",
        '<tool_call>{"name": "f", "arguments": {"a": "one\ntwo"}}</tool_call>',
        "",
        "",
        ("f", {"a": "one\ntwo"}),
    ),
    case(
        "qwen_xml",
        'Ok\n<tool_call>\n<function=f>\n<parameter=a>\n1\n 2 "q"\n</parameter>\n<parameter=n>\n5\n'
        "</parameter>\n<parameter=b>\nTrue\n</parameter>\n<parameter=m>\nnull\n</parameter>\n"
        "<parameter=r>\n7\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=g>\n"
        "</function>\n</tool_call>",
        "Ok",
        "",
        ("f", {"a": '1\n 2 "q"', "n": 5, "b": True, "m": None, "r": "7"}),
        ("g", {}),
    ),
    case("qwen_xml", "<tool_call> <function", "<tool_call> <function", ""),
    case(
        "seed",
        "<seed:tool_call><function=f><parameter=a>x</parameter></function></seed:tool_call>",
        "",
        "",
        ("f", {"a": "x"}),
    ),
    case(
        "minimax",
        'hm</think>yes<minimax:tool_call>\n<invoke name="f">\n<parameter name="a">v\n</parameter>\n'
        '<parameter name="o">{"k": 1}</parameter>\n</invoke>\n<invoke name="g">\n</invoke>\n'
        "</minimax:tool_call>",
        "yes",
        "hm",
        ("f", {"a": "v\n", "o": {"k": 1}}),
        ("g", {}),
        **THINKS,
        thinks=True,
    ),
    case(
        "glm",
        "<think>hm</think>\n<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>12</arg_value>\n"
        "<arg_key>n</arg_key>\n<arg_value>12</arg_value>\n</tool_call>\n<tool_call>g</tool_call>",
        "",
        "hm",
        ("f", {"a": "12", "n": 12}),
        ("g", {}),
        **THINKS,
    ),
    case("glm", "a <tool_call>is so\n", "a <tool_call>is so\n", ""),
    case(
        "deepseek_v32",
        '<｜DSML｜function_calls>\n<｜DSML｜invoke name="f">\n'
        '<｜DSML｜parameter name="a" string="true">1</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="x" string="false">1</｜DSML｜parameter>\n'
        "</｜DSML｜invoke>\n</｜DSML｜function_calls>",
        "",
        "",
        ("f", {"a": "1", "x": 1}),
    ),
    case(
        "llama3",
        '{"name": "f", "parameters": {"a": "b"}}; {"name": "g", "parameters": {}}',
        "",
        "",
        ("f", {"a": "b"}),
        ("g", {}),
    ),
    case(
        "llama3",
        '<|python_tag|>{"type": "function", "name": "f", "parameters": {"n": 1}}',
        "",
        "",
        ("f", {"n": 1}),
    ),
    case("llama3", '{"name": "h", "parameters": {}}', '{"name": "h", "parameters": {}}', ""),
    case("llama3", 'No: {"name": "f"}', 'No: {"name": "f"}', ""),
    case(
        "lfm2",
        "So<|tool_call_start|>[f(a='x', n=-1, o={'k': [1, None, true]}), g()]<|tool_call_end|>",
        "So",
        "",
        ("f", {"a": "x", "n": -1, "o": {"k": [1, None, True]}}),
        ("g", {}),
    ),
    case(
        "lfm2",
        "<|tool_call_start|>[f(1), __import__('os')]<|tool_call_end|>",
        "<|tool_call_start|>[f(1), __import__('os')]<|tool_call_end|>",
        "",
    ),
    case("lfm2", "<|tool_call_start|>[f(n=1e999)]", "<|tool_call_start|>[f(n=1e999)]", ""),
    case(
        "lfm2",
        "<|tool_call_start|>[f(a='\\ud83d')]<|tool_call_end|>",
        "",
        "",
        ("f", {"a": "\ud83d"}),
    ),
    case("llama4", '[f(a="x"), g()]', "", "", ("f", {"a": "x"}), ("g", {})),
    case("llama4", "[f](x) and [1, 2](", "[f](x) and [1, 2](", ""),
    case("llama4", "[h(a=1)]", "[h(a=1)]", ""),
    case(
        "gemma4",
        '<|channel>thought\nhm<channel|>So<|tool_call>call:f{a:<|"|>x, "y":{<|"|>,n:7,'
        'o:{k:[<|"|>l<|"|>,true]}}<tool_call|><|tool_call>call:g{}<tool_call|>',
        "So",
        "hm",
        ("f", {"a": 'x, "y":{', "n": 7, "o": {"k": ["l", True]}}),
        ("g", {}),
        think_open="<|channel>thought",
        think_close="<channel|>",
    ),
    case("gemma4", "<|tool_call>call:f{a<tool_call|>", "<|tool_call>call:f{a<tool_call|>", ""),
    case("functionary", '<function=f>{"n": 1}</function>', "", "", ("f", {"n": 1})),
    case(
        "mistral",
        '[TOOL_CALLS] [{"name": "f", "arguments": {"n": 1}, "id": "abcdefghi"}, {"name": "g", '
        '"arguments": {}}]',
        "",
        "",
        ("f", {"n": 1}),
        ("g", {}),
    ),
    case(
        "mistral_named",
        'So[TOOL_CALLS]f[ARGS]{"n": 1}[TOOL_CALLS]g[CALL_ID]123456789[ARGS]{}',
        "So",
        "",
        ("f", {"n": 1}),
        ("g", {}),
    ),
    case(
        "deepseek",
        'So<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{"n": 1}\n'
        "```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n{}\n```"
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "So",
        "",
        ("f", {"n": 1}),
        ("g", {}),
    ),
    case(
        "deepseek_v31",
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{"n": 1}<｜tool▁call▁end｜>'
        "<｜tool▁call▁begin｜>g<｜tool▁sep｜>{no}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "<｜tool▁call▁begin｜>g<｜tool▁sep｜>{no}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "",
        ("f", {"n": 1}),
    ),
    case(
        "kimi",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>"
        '{"n": 1}<|tool_call_end|><|tool_calls_section_end|>',
        "",
        "",
        ("f", {"n": 1}),
    ),
    case(
        "cohere",
        '<|START_ACTION|>[\n {"tool_call_id": "0", "tool_name": "f", "parameters": {"n": 1}}\n]'
        "<|END_ACTION|>",
        "",
        "",
        ("f", {"n": 1}),
    ),
    case(
        "harmony",
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary<|message|>"
        "Let me see.<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json"
        '<|message|>{"n": 1}<|call|>',
        "Let me see.",
        "hm",
        ("f", {"n": 1}),
    ),
    case(
        "harmony",
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant to=functions.g<|channel|>"
        "commentary json<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>yes \n"
        "<|return|>",
        "yes",
        "hm",
        ("g", {}),
    ),
    case("harmony", "no head at all", "no head at all", ""),
    case("harmony", "the rest<|return|>", "the rest", "", speaks=True),
]


@pytest.mark.parametrize(("syntax", "text", "said", "thought", "calls"), CASES)
def test_forms(
    syntax: Syntax, text: str, said: str, thought: str, calls: Sequence[tuple[str, Any]]
) -> None:
    found = split(syntax, [text])
    assert (found.said, found.thought) == (said, thought)
    assert [(name, json.loads(arguments)) for name, arguments in found.calls] == list(calls)
    assert len(set(found.ids)) == len(found.ids)
    assert all(len(id) >= 9 for id in found.ids)
    for seed in range(20):
        again = split(syntax, cut(text, random.Random(seed)))
        assert (again.said, again.thought, again.calls) == (said, thought, found.calls)


_WORDS = ("{", "}", '"name": ', '"arguments": ', '"f"', '"', "\\", ", ", "[", "]", " ", "\n", "x",
          "1", "assistant", "final", "<", ">", "</think>", "<think>", '{"name": "f", ')  # fmt: skip


@settings(max_examples=8)
@given(data=st.data())
@pytest.mark.parametrize("tools", ["", *FORMS])
def test_any_text_in_any_pieces(tools: Any, data: st.DataObject) -> None:
    """Whatever comes is split, alike for all cuts; and without marks nothing of it is lost."""
    syntax = Syntax(tools=tools) if tools == "harmony" else Syntax(tools=tools, **THINKS)
    words = st.sampled_from((*_WORDS, *literals(syntax)))
    text = "".join(data.draw(st.lists(words, max_size=40)))
    whole = split(syntax, [text])
    pieces = cut(text, random.Random(data.draw(st.integers(0, 999))))
    again = split(syntax, pieces)
    assert (again.said, again.thought, again.calls) == (whole.said, whole.thought, whole.calls)
    plain = split(PLAIN, pieces)
    assert (plain.said, plain.thought, plain.calls) == (text, "", [])


def test_a_long_call_is_told_as_it_comes_and_its_wrong_end_is_the_models() -> None:
    splitter = Splitter(0, Syntax(tools="hermes"))
    events = splitter.push('<tool_call>{"name": "f", "arguments": {"a": "' + "x" * 1000)
    assert found_in(events).calls == [("f", '{"a": "' + "x" * 1000)]
    events += splitter.push('" wrong}</tool_call> and on') + splitter.flush("")
    assert found_in(events).calls == [("f", '{"a": "' + "x" * 1000 + '" wrong}')]
    assert found_in(events).said == " and on".lstrip()


def test_only_what_may_be_a_marker_is_held_back() -> None:
    splitter = Splitter(0, Syntax(tools="hermes", **THINKS))
    assert found_in(splitter.push("Hello <")).said == "Hello"
    assert found_in(splitter.push("b")).said == " <b"
    assert found_in(splitter.push("<tool_c")).said == ""
    assert found_in(splitter.push("ase>")).said == "<tool_case>"


@pytest.mark.parametrize("text", ['<tool_call>{"name": "f", "arguments": {"a": "b', "a<tool_call>"])
def test_a_text_that_ends_within_a_call(text: str) -> None:
    found = split(Syntax(tools="hermes"), cut(text, random.Random(1)))
    assert (found.said, found.calls) in (("", [("f", '{"a": "b')]), ("a<tool_call>", []))


# --- tokens that are never shown ---

_HIDDEN = ("<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>", "<|call|>",
           "[TOOL_CALLS]", "[ARGS]", "[THINK]", "[/THINK]", "<|other|>")  # fmt: skip
_TOKENIZER = byte_tokenizer(_HIDDEN)


def answer(
    text: str, syntax: Syntax, *, stop: tuple[str, ...] = (), reason: str = "stop",
    tokenizer: Tokenizer = _TOKENIZER, ends: bool = True,
) -> tuple[Found, End, list[Event]]:  # fmt: skip
    """What becomes of an answer's tokens, those that are never shown among them."""
    ask = Ask(tokens=(1,), params=SamplingParams(stop=stop), syntax=syntax)
    choice = Choice(0, ask, tokenizer)
    tokens = tokenizer.encode(text, special_tokens=False)
    tokens = [*tokens, *(tokenizer.eos_token_ids if ends else ())]
    events = [event for token in tokens for event in choice.push(token, None)]
    over = Result(tokens=tuple(tokens), reason=reason, logits_digest="", timing=Timing())
    events += choice.end(over)
    last = events.pop()
    assert isinstance(last, End)
    return found_in(events), last, events


def test_markers_that_are_never_shown() -> None:
    syntax = Syntax(tools="harmony")
    text = ("<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary "
            'to=functions.f <|constrain|>json<|message|>{"a": "é<|other|>"}<|call|>')  # fmt: skip
    found, end, _ = answer(text, syntax)
    assert (found.said, found.thought, found.calls) == ("", "hm", [("f", '{"a": "é"}')])
    assert end.reason == "tool_calls"
    found, end, _ = answer("[THINK]hm[/THINK]yes[TOOL_CALLS]f[ARGS]{no", Syntax(
        tools="mistral_named", think_open="[THINK]", think_close="[/THINK]"))  # fmt: skip
    assert (found.said, found.thought, found.calls) == ("yesf{no", "hm", [])
    assert end.reason == "stop"


def test_the_names_of_hidden_markers_are_text_where_they_are_spelled() -> None:
    """A user's question about them is no call."""
    spelled = byte_tokenizer(("<|x|>",)).encode('[TOOL_CALLS]f[ARGS]{"n": 1}', special_tokens=False)
    choice = Choice(0, Ask(tokens=(1,), params=SamplingParams(),
                           syntax=Syntax(tools="mistral_named")), _TOKENIZER)  # fmt: skip
    events = [event for token in spelled for event in choice.push(token, None)]
    assert found_in(events).said.startswith("[TOOL_CALLS]f[ARGS]{")
    assert not found_in(events).calls


def test_stop_strings_do_not_see_marks() -> None:
    syntax = Syntax(think_open="[THINK]", think_close="[/THINK]")
    found, end, _ = answer("[THINK]a[/THINK]bcd", syntax, stop=("abc",))
    assert (found.said, found.thought, end.stop) == ("", "", "abc")
    found, end, _ = answer("[THINK]a[/THINK]bcd", syntax, stop=("[/THINK]",))
    assert (found.said, found.thought, end.stop) == ("", "a", "[/THINK]")
    found, end, _ = answer("[THINK]a[/THINK]bxd", syntax, stop=("abc", "xy"))
    assert (found.said, found.thought, end.stop) == ("bxd", "a", None)


def test_broken_characters_before_a_mark_are_shown_as_broken() -> None:
    ask = Ask(tokens=(1,), params=SamplingParams(),
              syntax=Syntax(think_open="[THINK]", think_close="[/THINK]"))  # fmt: skip
    choice = Choice(0, ask, _TOKENIZER)
    first, second = "é".encode()
    opens, closes = (_TOKENIZER.token_to_id(name) for name in ("[THINK]", "[/THINK]"))
    assert opens is not None and closes is not None
    ids = {_TOKENIZER.text_bytes(token): token for token in range(256)}
    tokens = (opens, ids[bytes([first])], closes, ids[bytes([second])], ids[b"x"])
    events = [event for token in tokens for event in choice.push(token, None)]
    found = found_in(events)
    assert (found.thought, found.said) == ("\ufffd", "\ufffdx")


def test_thoughts_are_counted_and_end_tokens_are_no_part() -> None:
    syntax = Syntax(think_open="[THINK]", think_close="[/THINK]")
    _, end, events = answer("[THINK]abc[/THINK]de", syntax)
    assert end.thought_tokens == 5  # and both marks
    told = [info for event in events if isinstance(event, Text) for info in event.tokens]
    assert b"".join(info.text for info in told) == b"de"
    assert len(end.tokens) == 8


def test_reasons() -> None:
    call = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    syntax = Syntax(tools="hermes")
    assert answer(call, syntax)[1].reason == "tool_calls"
    assert answer("no", syntax)[1].reason == "stop"
    assert answer(call, PLAIN)[1].reason == "stop"
    assert answer(call[:40], syntax, reason="length", ends=False)[1].reason == "length"
    assert answer("no", syntax, reason="error", ends=False)[1].reason == "error"


def test_an_answer_is_over_with_the_last_call_that_is_wanted() -> None:
    call = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    found, end, _ = answer(call * 3, Syntax(tools="hermes", most_calls=1), reason="cancelled")
    assert found.calls == [("f", "{}")]
    assert end.reason == "tool_calls"
    assert len(end.tokens) <= len(call) + 1


# --- what a template says ---


@pytest.mark.parametrize("tools", FORMS)
def test_a_template_shows_its_form(tools: Any) -> None:
    parts = [literal for literal in literals(Syntax(tools=tools)) if "{" not in literal]
    if tools in ("llama3", "cohere"):
        parts += ['"name", "parameters": ', "<|start_header_id|>", "tool_name"]
    if tools == "harmony":
        parts.append("commentary")
    if tools == "apriel":
        parts.append("<tool_calls>[{")
    if tools == "minimax_m1":
        parts.append("<end_of_sentence>")
    literal = json.dumps("".join(parts), ensure_ascii=False).replace("'", "\\'")
    source = "{% if tools %}{{ tools | tojson }}{{ " + literal + " }}{% endif %}"
    assert find_syntax(ChatTemplate(source)).tools == tools
    without = ChatTemplate("{{ " + literal + " }}")
    assert find_syntax(without).tools == ("harmony" if tools == "harmony" else "")


def test_a_template_that_knows_tools_in_no_known_form_has_the_generic_one() -> None:
    assert find_syntax(ChatTemplate("{{ tools }}")) == Syntax(tools="hermes")
    assert find_syntax(ChatTemplate("{{ 'tools' }} {{ message.tools }}")) == PLAIN
    assert find_syntax(None) == PLAIN
    single = (
        "{{ tools }}{{ raise_exception('This model only supports single tool-calls at once!') }}"
    )
    assert find_syntax(ChatTemplate(single)).most_calls == 1
    assert find_syntax(ChatTemplate("{{ x.split('</think>') }}")) == Syntax(**THINKS)
