"""Prompts: a conversation in the words that a model's template knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from bandweave.serving.answers.rendering import Prompt, render
from bandweave.serving.answers.syntaxes import find_syntax, knowledge_of
from bandweave.serving.errors import ApiError
from bandweave.text.chat_template import ChatTemplate
from bandweave.text.files import TextError

USER = {"role": "user", "content": "Hi"}


def call(arguments: Any, id: str = "call-0123456789ab") -> dict[str, Any]:
    function = {"name": "f", "arguments": arguments}
    return {"role": "assistant", "content": "",
            "tool_calls": [{"id": id, "type": "function", "function": function}]}  # fmt: skip


def prompt(source: str, messages: Sequence[Mapping[str, Any]] = (USER,), **changes: Any) -> Prompt:
    template = ChatTemplate(source)
    values: dict[str, Any] = {"tools": (), "thinks": None, "effort": "", "variables": {},
                              "continues": False, "begins": True, **changes}  # fmt: skip
    return render(template, find_syntax(template), messages, **values)


EACH = "{% for m in messages %}{% for c in m.tool_calls or [] %}"
END = "{% endfor %}{% endfor %}{{ tools }}"


@pytest.mark.parametrize("arguments", ['{"a": "é"}', {"a": "é"}])
@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ c.function.arguments | tojson }}", '{"a": "é"}'),
        ("{% for k, v in c.function.arguments | items %}{{ k }}={{ v }}{% endfor %}", "a=é"),
        ("{{ 'f ' + c.function.arguments }}", 'f {"a": "é"}'),
        ("{{ c.function.arguments }}", '{"a": "é"}'),
        (
            "{% if c.function.arguments is string %}{{ c.function.arguments }}"
            "{% else %}{{ c.function.arguments | tojson }}{% endif %}",
            '{"a": "é"}',
        ),
    ],
)
def test_arguments_are_what_the_template_wants(source: str, text: str, arguments: Any) -> None:
    assert prompt(EACH + source + END, [USER, call(arguments)]).text == text + "None"


def test_what_is_no_json_stays_as_it_is() -> None:
    assert prompt(EACH + "{{ c.function.arguments }}" + END, [call('{"a')]).text == '{"aNone'
    with pytest.raises(TextError, match="refuses"):
        prompt(EACH + "{{ c.function.arguments.items() }}" + END, [call('{"a')])


def test_short_ids_where_the_template_wants_them() -> None:
    source = (
        EACH + "{% if c.id | length != 9 %}{{ raise_exception('9 alphanumeric') }}{% endif %}"
        "{{ c.id }}{% endfor %}{{ m.tool_call_id }} {% endfor %}"
    )
    result = {"role": "tool", "content": "x", "tool_call_id": "call-0123456789ab"}
    first, second = prompt(source, [call({}), result]).text.split()
    assert first == second and first.isalnum()
    assert prompt(source, [call({}, "abcdefgh1")]).text == "abcdefgh1 "


def test_switches_and_efforts() -> None:
    source = "{{ enable_thinking }} {{ thinking }} {{ reasoning_effort }}"
    assert prompt(source, thinks=False).text == "False False "
    assert prompt(source, effort="none").text == "False False "
    assert prompt(source, effort="low").text == "  low"
    assert prompt(source, variables={"thinking": True}).text == "True True "
    assert prompt(source, variables={"reasoning_effort": "none"}).text == "False False "
    assert prompt("{{ enable_thinking }}", effort="low").text == "True"


def test_what_a_template_knows_is_what_it_looks_up() -> None:
    known = knowledge_of(ChatTemplate("{{ 'tools' }}{# thinking #}{{ m.enable_thinking }}"))
    assert not known.tools and not known.switches and not known.effort
    source = "{% if thinking is not defined %}{% set thinking = 1 %}{% endif %}{{ thinking }}"
    assert knowledge_of(ChatTemplate(source)).switches == ("thinking",)
    assert (
        prompt("{% for t in xml_tools or [] %}{{ t.a }}{% endfor %}", tools=[{"a": 1}]).text == "1"
    )


def test_thoughts_that_a_prompt_opens_or_ends() -> None:
    opened = prompt("{{ messages[0].content }}<think>\n{# </think> #}")
    assert (opened.thinks, opened.speaks) == (True, False)
    closed = prompt("<think>\n{# </think> #}", thinks=False)
    assert (closed.text, closed.thinks, closed.speaks) == ("<think>\n\n</think>\n\n", False, True)
    added = prompt("x{# <think> </think> #}", thinks=False)
    assert (added.text, added.speaks) == ("x<think>\n\n</think>\n\n", True)
    assert prompt("x", thinks=False).text == "x"
    own = prompt("{% if not enable_thinking %}<think></think>{% endif %}", thinks=False)
    assert (own.text, own.speaks) == ("<think></think>", True)


HARMONY = (
    "{{ reasoning_effort }}{% for m in messages %}<|start|>{{ m.role }}<|message|>"
    "{{ m.thinking or '' }}{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}{# <|channel|>commentary #}"
)


def test_channels() -> None:
    assert prompt(HARMONY, effort="minimal").text.startswith("low<")
    assert prompt(HARMONY, effort="xhigh").text.startswith("high<")
    none = prompt(HARMONY, thinks=False)
    assert none.text.endswith("<|start|>assistant<|channel|>final<|message|>") and none.speaks
    with pytest.raises(ApiError, match="low reasoning_effort"):
        prompt(HARMONY, thinks=False, tools=[{"type": "function"}])
    thought = {"role": "assistant", "content": "yes", "reasoning_content": "hm"}
    assert "<|message|>hmyes<|end|>" in prompt(HARMONY, [USER, thought]).text


def test_continued_messages() -> None:
    source = "{% for m in messages %}[{{ m.role }} {{ m.content | trim }}]{% endfor %}"
    last = {"role": "assistant", "content": "Once "}
    assert prompt(source, [USER, last], continues=True).text == "[user Hi][assistant Once "
    for messages in ([USER], [USER, call({})]):
        with pytest.raises(ApiError, match="one of the assistant's"):
            prompt(source, messages, continues=True)
    with pytest.raises(ApiError, match="leaves the last message out"):
        prompt("{{ messages[0].content }}", [USER, last], continues=True)
