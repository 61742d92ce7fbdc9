"""Grammars: what is held to a form has it, whatever the model; what cannot be held is refused."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandweave.executors.reference import math as reference_math
from bandweave.generation import grammar_checker
from bandweave.generation.generator import Generator
from bandweave.generation.grammar_checker import GrammarChecker, check_grammar
from bandweave.generation.guidance import Guidance
from bandweave.generation.request import Request, Result
from bandweave.generation.sampling import SamplingParams
from bandweave.generation.speculation.controller import Speculation
from bandweave.serving.answers.events import CallArguments, CallBegun, Text, Thought
from bandweave.serving.answers.forms import FORMS
from bandweave.serving.answers.grammars import Form, Wanted, grammar_of, tool_parameters
from bandweave.serving.answers.marks import Marks
from bandweave.serving.answers.splitter import Splitter
from bandweave.serving.answers.syntax import PLAIN, Syntax
from bandweave.text.tokenizer import Tokenizer
from tests.helpers.chat_models import THINKER, WEATHER, ChatServer, byte_tokenizer
from tests.helpers.connections import wait_until
from tests.helpers.prefix_executor import PrefixExecutor
from tests.helpers.scripted_drafter import ScriptedDrafter

_HIDDEN = ("<｜tool▁calls▁begin｜>", "<|channel|>", "<|message|>", "<|start|>", "<|end|>",
           "[TOOL_CALLS]", "[ARGS]", "[THINK]", "[/THINK]")  # fmt: skip


@cache
def _vocabulary() -> tuple[Tokenizer, Guidance]:
    """Bytes, and markers that are never shown."""
    tokenizer = byte_tokenizer(_HIDDEN)
    return tokenizer, _guidance(tokenizer)


@cache
def _demo() -> tuple[Tokenizer, Guidance]:
    with ChatServer(THINKER) as server:
        return server.tokenizer, _guidance(server.tokenizer)


def _guidance(tokenizer: Tokenizer) -> Guidance:
    texts = [tokenizer.added_bytes(token) for token in range(tokenizer.size)]
    return Guidance(texts, tokenizer.eos_token_ids)


def play(
    vocabulary: tuple[Tokenizer, Guidance], grammar: str, seed: int, most: int = 3000
) -> tuple[list[int], bool]:
    """A model of random logits, which are sampled at temperature 1: its answer, and whether it has
    come to an end. Later it prefers to end, as no random model would."""
    tokenizer, guidance = vocabulary
    chosen = np.random.default_rng(seed)
    matcher, tokens = guidance.matcher(grammar), list[int]()
    ending = [tokenizer.token_to_id(text) for text in ('"', "}", "]", ",")]
    for place in range(most):
        logits = chosen.normal(size=tokenizer.size) + chosen.gumbel(size=tokenizer.size)
        if place > 40:
            logits[list(tokenizer.eos_token_ids)] += 50
            for rank, token in enumerate(ending):
                logits[token] += 30 - 8 * rank
        logits[~matcher.allowed()] = -np.inf
        token = int(logits.argmax())
        assert np.isfinite(logits[token])
        if token in tokenizer.eos_token_ids:
            return tokens, True
        matcher.accept(token)
        tokens.append(token)
    return tokens, False


# --- schemas ---

_NAMES = st.sampled_from(("a", "é", 'q"', "key", "b c"))
_SCALARS = st.one_of(
    st.just({"type": "null"}),
    st.just({"type": "boolean"}),
    st.builds(lambda low, span: {"type": "integer", "minimum": low, "maximum": low + span},
              st.integers(-500, 500), st.integers(0, 1000)),
    st.just({"type": "number"}),
    st.builds(lambda low, span: {"type": "string", "minLength": low, "maxLength": low + span},
              st.integers(0, 4), st.integers(0, 9)),
    st.just({"type": "string", "pattern": "^[a-c]{2,5}$"}),
    st.just({"type": "string", "format": "date"}),
    st.builds(lambda values: {"enum": values},
              st.lists(st.sampled_from((1, "x", None, True, "é", 2.5)), min_size=1, unique=True)),
    st.builds(lambda value: {"const": value}, st.sampled_from((0, "é\n", False))),
    st.just({"$ref": "#/$defs/shared"}),
)  # fmt: skip


def _nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    objects = st.builds(
        lambda properties, required: {
            "type": "object",
            "properties": properties,
            "required": [name for name in properties if name in required],
            "additionalProperties": False,
        },
        st.dictionaries(_NAMES, inner, max_size=4),
        st.sets(_NAMES),
    )
    arrays = st.builds(
        lambda items, low, span: {
            "type": "array", "items": items, "minItems": low, "maxItems": low + span,
        },
        inner, st.integers(0, 2), st.integers(0, 2),
    )  # fmt: skip
    return st.one_of(objects, arrays, st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner))


_SHARED = {"type": "object", "properties": {"s": {"type": "boolean"}}, "required": ["s"],
           "additionalProperties": False}  # fmt: skip
SCHEMAS = st.recursive(_SCALARS, _nested, max_leaves=6).map(
    lambda schema: {**schema, "$defs": {"shared": _SHARED}}
)


def fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value is of a schema, of those above."""
    if "$ref" in schema:
        return fits(value, _SHARED)
    if "anyOf" in schema:
        return any(fits(value, one) for one in schema["anyOf"])
    if "enum" in schema:
        return any(value == one and type(value) is type(one) for one in schema["enum"])
    if "const" in schema:
        return value == schema["const"] and type(value) is type(schema["const"])
    kind = schema["type"]
    if kind == "object":
        return (isinstance(value, dict) and set(schema["required"]) <= set(value)
                and all(name in schema["properties"] and fits(one, schema["properties"][name])
                        for name, one in value.items()))  # fmt: skip
    if kind == "array":
        return (isinstance(value, list) and schema["minItems"] <= len(value) <= schema["maxItems"]
                and all(fits(one, schema["items"]) for one in value))  # fmt: skip
    if kind == "integer":
        return type(value) is int and schema["minimum"] <= value <= schema["maximum"]
    if kind == "string":
        least, most = schema.get("minLength", 0), schema.get("maxLength", 1 << 20)
        return isinstance(value, str) and least <= len(value) <= most
    known = {"null": type(None), "boolean": bool}
    return isinstance(value, known.get(kind, (int, float)))


_SHARED["required"] = ["s"]


@settings(max_examples=50)
@given(schema=SCHEMAS, seed=st.integers(0, 1 << 30))
def test_a_random_model_keeps_to_random_schemas(schema: dict[str, Any], seed: int) -> None:
    vocabulary = _demo()
    grammar = grammar_of(Wanted(form=Form(kind="schema", value=schema), tools={}), PLAIN, Marks({}))
    tokens, ended = play(vocabulary, grammar, seed)
    assert ended
    assert fits(json.loads(vocabulary[0].decode(tokens)), schema)


@pytest.mark.parametrize("seed", range(4))
def test_any_json_object(seed: int) -> None:
    vocabulary = _demo()
    grammar = grammar_of(Wanted(form=Form(kind="json"), tools={}), PLAIN, Marks({}))
    tokens, ended = play(vocabulary, grammar, seed)
    assert ended
    assert isinstance(json.loads(vocabulary[0].decode(tokens)), dict)


_THINKS = Syntax(think_open="[THINK]", think_close="[/THINK]")


@pytest.mark.parametrize(
    "syntax",
    [
        _THINKS,
        replace(_THINKS, thinks=True),
        Syntax(tools="harmony"),
        Syntax(think_open="<think>", think_close="</think>"),
    ],
)
@pytest.mark.parametrize(
    "form",
    [
        Form(kind="schema", value={"type": "integer"}),
        Form(kind="regex", value="a/b[0-9]{2}\\n"),
        Form(kind="choice", value=['"yes"', "no\n"]),
        Form(kind="lark", value='start: "a" B\nB: /[0-9]}/'),
    ],
)
def test_a_form_holds_for_what_is_said(syntax: Syntax, form: Form) -> None:
    vocabulary = _vocabulary()
    wanted = Wanted(form=form, tools={})
    mark = Marks.of(syntax, vocabulary[0])
    grammar = grammar_of(wanted, syntax, mark)
    if syntax == _THINKS:
        assert check_of(wanted, syntax) == ""
    opens = "<|channel|>analysis" if syntax.tools else syntax.think_open or "any"
    first = vocabulary[0].encode("any" if syntax.thinks else opens, special_tokens=False)[0]
    assert vocabulary[1].matcher(grammar).allowed()[first]
    for seed in range(3):
        tokens, ended = play(vocabulary, grammar, seed, most=300)
        said, thought, _ = read(vocabulary[0], tokens, syntax)
        if not ended:  # it thinks still, as random models do
            assert thought and not said
        elif form.kind == "schema":
            assert type(json.loads(said)) is int
        elif form.kind == "choice":
            assert said in form.value
        else:
            assert said[0] == "a" and any(digit in said for digit in "0123456789")


_TOOLS = tool_parameters(
    [
        WEATHER,
        {"type": "function", "function": {"name": "clock"}},
        {"type": "function", "function": {"name": "pick", "parameters": {
            "type": "object", "properties": {"unit": {"$ref": "#/$defs/unit"},
                                             "all": {"type": "boolean"}},
            "required": ["unit"], "$defs": {"unit": {"enum": ["celsius", "kelvin"]}},
            "additionalProperties": False}}},
    ]
)  # fmt: skip


@pytest.mark.parametrize("tools", FORMS)
@pytest.mark.parametrize("most", [0, 1])
def test_required_calls_are_in_the_models_own_form(tools: Any, most: int) -> None:
    """What a random model is forced to write is read as calls, whose arguments are right."""
    vocabulary = _vocabulary()
    syntax = Syntax(tools=tools, schemas=_TOOLS)
    wanted = Wanted(tools=_TOOLS, must_call=True, most_calls=most)
    made = 0
    for seed in range(4):
        grammar = grammar_of(wanted, syntax, Marks.of(syntax, vocabulary[0]))
        tokens, ended = play(vocabulary, grammar, seed, most=400)
        said, _, calls = read(vocabulary[0], tokens, syntax)
        if not ended:
            continue
        made += 1
        assert calls and not said, (said, calls)
        assert not most or len(calls) == 1
        for name, arguments in calls:
            found = json.loads(arguments)
            if name == "pick":
                assert found["unit"] in ("celsius", "kelvin")
            elif name == "weather":
                assert isinstance(found["city"], str)
            else:
                assert found == {} and name == "clock"
    assert made


@pytest.mark.parametrize("tools", ["hermes", "glm", "mistral_named", "llama3", "harmony"])
def test_strict_tools_leave_the_text_free(tools: Any) -> None:
    vocabulary = _vocabulary()
    syntax = Syntax(tools=tools, schemas=_TOOLS)
    grammar = grammar_of(Wanted(tools=_TOOLS), syntax, Marks.of(syntax, vocabulary[0]))
    matcher = vocabulary[1].matcher(grammar)
    said = "<|channel|>final<|message|>Hello" if tools == "harmony" else "Hello, <world>"
    for token in vocabulary[0].encode(said, special_tokens=False):
        assert matcher.allowed()[token]
        matcher.accept(token)
    assert matcher.allowed()[list(vocabulary[0].eos_token_ids)].all()


def check_of(wanted: Wanted, syntax: Syntax) -> str:
    tokenizer = _vocabulary()[0]
    return check_grammar(grammar_of(wanted, syntax, Marks.of(syntax, tokenizer), checked=True))


def read(
    tokenizer: Tokenizer, tokens: Sequence[int], syntax: Syntax
) -> tuple[str, str, list[tuple[str, str]]]:
    marks = Marks.of(syntax, tokenizer)
    stream = tokenizer.stream(marks=marks.by_token)
    splitter = Splitter(0, syntax, marks)
    events = [event for token in tokens for event in splitter.push(stream.push(token))]
    events += splitter.flush(stream.flush())
    calls: list[tuple[str, str]] = []
    for event in events:
        if isinstance(event, CallBegun):
            calls.append((event.name, ""))
        elif isinstance(event, CallArguments):
            calls[-1] = (calls[-1][0], calls[-1][1] + event.text)
    return (
        "".join(event.text for event in events if isinstance(event, Text)),
        "".join(event.text for event in events if isinstance(event, Thought)),
        calls,
    )


# --- what cannot be kept to ---

_ENDLESS = {"allOf": [{"type": "string", "pattern": f".*a.{{{i}}}b.*"} for i in range(12)]}
_HOSTILE: dict[str, Any] = {
    "words": {"enum": [f"word{i}" for i in range(60_000)]},
    "circle": {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    "nothing": False,
    "look-around": {"type": "string", "pattern": "(?=a)b"},
    "elsewhere": {"$ref": "https://example.com/schema.json"},
    "type": {"type": "poem"},
}  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with ChatServer(THINKER) as server:
        yield server


@pytest.mark.parametrize("name", _HOSTILE)
def test_hostile_schemas_are_refused(server: ChatServer, name: str) -> None:
    begun = time.monotonic()
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": _HOSTILE[name]}}
    error = server.refused(response_format=form)
    assert time.monotonic() - begun < 12  # a second of the processor, on a machine that is busy
    assert error["param"] == "response_format"
    assert error["message"].startswith("response_format cannot be kept to: ")
    assert len(error["message"]) < 600
    assert not any(one.grammar for one in server.engine.requests)


def test_a_check_takes_a_second_of_the_processor_at_most() -> None:
    import resource

    def used() -> float:
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        return spent.ru_utime + spent.ru_stime

    before = used()
    with contextlib.closing(GrammarChecker()) as checker:
        said = checker.check(f"start: %json {json.dumps(_ENDLESS)}")
    assert "takes more than" in said or "Unable to determine" in said  # quick processors get there
    assert used() - before < 2.5  # with the start of the process


def test_one_process_checks_all_and_whatever_one_does_the_next_is_checked() -> None:
    with contextlib.closing(GrammarChecker()) as checker:
        assert checker.check('start: "a"') == ""
        process = checker.process
        assert checker.check("start: (") != ""
        assert checker.check(f"start: %json {json.dumps(_ENDLESS)}") != ""
        assert checker.check('start: "b"') == ""
        assert checker.process == process
        assert process is not None
        os.kill(process, signal.SIGKILL)
        assert checker.check('start: "c"') == ""
        assert checker.process not in (None, process)
        last = checker.process
    assert checker.process is None
    assert last is not None
    with pytest.raises(ProcessLookupError):
        os.kill(last, 0)


def test_a_process_that_nobody_asks_ends() -> None:
    with contextlib.closing(GrammarChecker(idle=0.01)) as checker:
        assert checker.check('start: "a"') == ""
        assert wait_until(lambda: checker.process is None, 20)
        assert checker.check("start: (") != ""


def test_a_check_that_takes_too_long_is_given_up() -> None:
    with contextlib.closing(GrammarChecker(wall=1e-4)) as checker:
        with pytest.raises(TimeoutError, match="too busy"):
            checker.check('start: "a"')
        assert checker.process is None


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": 5}}},
         "response_format.json_schema.schema"),
        ({"grammar": "root ::= ("}, "grammar"),
        ({"guided_regex": "("}, "guided_regex"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_json": "{"}, "guided_json"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs"),
        ({"guided_regex": "a", "response_format": {"type": "json_object"}}, "guided_regex"),
    ],
)  # fmt: skip
def test_forms_that_are_none(server: ChatServer, body: dict[str, Any], param: str) -> None:
    assert server.refused(**body)["param"] == param


@pytest.mark.parametrize(
    ("body", "has"),
    [
        ({"response_format": {"type": "text"}}, ""),
        ({"response_format": {"type": "json_object"}}, '"type": "object"'),
        ({"response_format": {"type": "json_object", "schema": {"type": "array"}}}, "array"),
        ({"response_format": {"type": "json_schema", "schema": {"type": "array"}}}, "array"),
        ({"response_format": {"type": "json_schema", "json_schema": {
            "name": "x", "strict": True, "schema": {"type": "null"}}}}, "null"),
        ({"json_schema": {"type": "null"}}, "null"),
        ({"guided_json": '{"type": "null"}'}, "null"),
        ({"guided_regex": "a[0-9]"}, "a[0-9]"),
        ({"guided_choice": ["one", "two"]}, '"one" | "two"'),
        ({"guided_grammar": 'start: "left" | "right"'}, "left"),
        ({"grammar": 'root ::= "left" | "right"'}, "left"),
        ({"structured_outputs": {"choice": ["one", "two"]}}, '"one" | "two"'),
        ({"structured_outputs": {"json": {"type": "null"}}}, "null"),
    ],
)  # fmt: skip
def test_forms_of_all_servers(
    server: ChatServer, body: dict[str, Any], has: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammar_checker, "check_grammar", lambda grammar: "")  # tested above
    server.said(**body)
    grammar = server.engine.requests[-1].grammar
    assert has in grammar and bool(has) == bool(grammar)


def test_without_the_library(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "llguidance" else found(name)
    )
    error = server.refused(response_format={"type": "json_object"})
    assert "pip install 'bandweave[serve]'" in error["message"]
    assert server.said()["message"]["content"] == "Hello"


# --- in company ---

_SCHEMA = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99},
                                            "b": {"enum": ["yes", "no"]}},
           "required": ["a", "b"], "additionalProperties": False}  # fmt: skip


def run(requests: Sequence[Request], drafter: ScriptedDrafter | None = None) -> list[Result]:
    tokenizer, guidance = _vocabulary()
    executor = PrefixExecutor(num_pages=24, vocab_size=tokenizer.size)
    speculation = None if drafter is None else Speculation(drafter, draft_tokens=5, adaptive=False)
    generator = Generator(
        executor, executor.embed, num_pages=24, context=192, max_rows=256,
        vocab_size=tokenizer.size, exp=reference_math.exp, speculation=speculation,
        make_matcher=guidance.matcher,
    )  # fmt: skip
    return generator.run(requests, digest=True)


def test_four_answers_and_speculation_are_those_alone() -> None:
    tokenizer, _ = _vocabulary()
    form = Form(kind="schema", value=_SCHEMA)
    grammar = grammar_of(Wanted(form=form, tools={}), PLAIN, Marks({}))
    params = SamplingParams(temperature=1.0, seed=3, max_tokens=40)
    requests = [
        Request(tokens=(1, 2, 3), params=params, choice=choice, grammar=grammar,
                end_tokens=frozenset(tokenizer.eos_token_ids))
        for choice in range(4)
    ]  # fmt: skip
    alone = [run([request])[0] for request in requests]
    together = run(requests)
    answers = {index: one.tokens for index, one in enumerate(alone)}
    drafter = ScriptedDrafter(answers, vocab_size=tokenizer.size, lies=3)
    drafted = run(requests, drafter)
    for one, two, three in zip(alone, together, drafted, strict=True):
        assert one.tokens == two.tokens == three.tokens
        assert one.logits_digest == two.logits_digest == three.logits_digest
        if one.reason == "stop":
            assert json.loads(tokenizer.decode(one.tokens)).keys() == {"a", "b"}
    assert len({one.tokens for one in alone}) > 1
    assert sum(one.timing.accepted_tokens for one in drafted) > 0


def test_random_seeds_are_no_concern_of_grammars() -> None:
    """A matcher's state follows from its tokens alone."""
    _, guidance = _vocabulary()
    grammar = grammar_of(
        Wanted(form=Form(kind="schema", value=_SCHEMA), tools={}), PLAIN, Marks({})
    )
    tokens, _ = play(_vocabulary(), grammar, random.Random(5).randrange(99), most=30)
    first, second = guidance.matcher(grammar), guidance.matcher(grammar)
    for token in tokens:
        first.accept(token)
    for token in tokens:
        second.allowed()
        second.accept(token)
    assert (first.allowed() == second.allowed()).all()
