"""Chat templates that come to no end, fill the memory, raise anything or leave the sandbox."""

from __future__ import annotations

import resource
import sys
import threading
from pathlib import Path

import pytest

from bandweave.text.chat_template import ChatTemplate
from bandweave.text.files import TextError

MESSAGES = [{"role": "user", "content": "Hi"}]

ENDLESS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "writing loops": "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}"
    "{% endfor %}",
    "a macro that calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a macro that calls itself twice": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}"
    "{% endif %}{% endmacro %}{{ f(60) }}",
    "a loop in itself": "{% for m in messages recursive %}{{ loop([m, m]) }}{% endfor %}",
    "filters": "{% for i in range(99999) %}{{ range(99999) | map('string') | join | length }}"
    "{% endfor %}",
    "made-up text": "{{ lipsum(n=10000000) }}",
}

LARGE = {
    "doubled text": "{% set ns = namespace(x='ab') %}{% for i in range(60) %}"
    "{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x | length }}",
    "doubled list": "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}"
    "{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "repeated text": "{{ 'ab' * 10 ** 9 }}",
    "repeated list": "{{ [1] * 10 ** 9 }}",
    "padding": "{{ '%2000000000d' % messages | length }}",
    "padding of a constant": "{{ '%2000000000d' % 3 }}",
    "another padding": "{{ messages[0].content | center(2000000000) }}",
    "indents": "{{ messages | tojson(indent=2000000000) }}",
    "a long answer": "{% for i in range(90000) %}{{ 'x' * 10000 }}{% endfor %}",
    "a large number": "{% set ns = namespace(x=7) %}{% for i in range(40) %}"
    "{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "a large power": "{{ (messages | length + 9) ** 1000000000 }}",
}

DEEP = {
    "blocks": "{% if 1 %}" * 300 + "{% endif %}" * 300,
    "loops": "{% for a in [1] %}" * 40 + "{% endfor %}" * 40,
    "brackets": "{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}",
    "lists": "{{ " + "[" * 20000 + "]" * 20000 + " }}",
    "sums": "{{ " + "1+" * 30000 + "1 }}",
    "no end": "{% for m in",
    "too long": "x" * 100_000,
}

ESCAPES = {
    "globals": "{{ self.__init__.__globals__ }}",
    "format": "{{ ('{0.__globals__[Path]}' | attr('format'))(raise_exception) }}",
    "a name of Python's": "{% set ns = namespace() %}{% set ns.__class__ = 3 %}",
    "a name of Python's at once": "{% set ns = namespace(**{'__init__': 3}) %}",
    "a file": "{% include '/etc/passwd' %}",
    "changes": "{{ messages.append(1) }}",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", [*ENDLESS, *LARGE])
def test_templates_that_take_too_much(name: str) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS), sys.gettrace()
    with pytest.raises(TextError) as caught:
        ChatTemplate({**ENDLESS, **LARGE}[name]).render(MESSAGES)
    message = str(caught.value)
    assert "chat template" in message and "\n" not in message and len(message) < 500
    assert (resource.getrlimit(resource.RLIMIT_AS), sys.gettrace()) == before
    assert ChatTemplate("{{ messages[0].content }}").render(MESSAGES) == "Hi"


@pytest.mark.parametrize("name", DEEP)
def test_templates_that_cannot_be_read(name: str) -> None:
    with pytest.raises(TextError, match="chat template") as caught:
        ChatTemplate(DEEP[name])
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ESCAPES)
def test_the_sandbox_holds(name: str) -> None:
    with pytest.raises(TextError, match="refuses these messages"):
        ChatTemplate(ESCAPES[name]).render(MESSAGES)


@pytest.mark.parametrize("source", [
    "{{ raise_exception('a\\nb\x1b[2J' * 1000) }}", "{{ raise_exception(messages) }}",
    "{{ raise_exception(1) }}", "{{ raise_exception('') }}", "{{ [] | first + 1 }}",
    "{{ messages | map(attribute='x.y') | list | tojson }}", "{{ strftime_now(3) }}",
])  # fmt: skip
def test_templates_that_raise(source: str) -> None:
    with pytest.raises(TextError, match="chat template") as caught:
        ChatTemplate(source).render(MESSAGES)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 500


def test_a_long_conversation_is_rendered() -> None:
    source = "{% for m in messages %}{{ m.role }}{{ m.content | trim }}{% endfor %}" * 40
    messages = [{"role": "user", "content": " x" * 100}] * 1000
    assert len(ChatTemplate(source).render(messages)) == 40 * 1000 * (4 + 199)


def test_threads_render_at_once() -> None:
    good, bad = ChatTemplate("{{ messages[0].content }}"), ChatTemplate(ENDLESS["loops"])
    found: list[str] = []

    def render(template: ChatTemplate) -> None:
        try:
            found.append(template.render(MESSAGES))
        except TextError:
            found.append("refused")

    threads = [threading.Thread(target=render, args=(one,)) for one in (bad, good, bad, good)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == ["Hi", "Hi", "refused", "refused"]
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.getrlimit(resource.RLIMIT_AS)[1]


def test_several_templates_by_name(tmp_path: Path) -> None:
    config = tmp_path / "tokenizer_config.json"
    config.write_text('{"chat_template": {"default": "d", "tool_use": "t"}}')
    assert ChatTemplate.is_in(tmp_path)
    assert ChatTemplate.from_folder(tmp_path).render(MESSAGES) == "d"
    for value in ('{"rag": "r"}', "[]", "[3]", "3", '[{"name": "default"}]'):
        config.write_text(f'{{"chat_template": {value}}}')
        with pytest.raises(TextError, match="none called 'default'"):
            ChatTemplate.from_folder(tmp_path)
    config.write_text("{}")
    assert not ChatTemplate.is_in(tmp_path)
