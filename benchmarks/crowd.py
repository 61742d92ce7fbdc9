"""Crowd: requests as many kinds of clients send them, by protocol, with tools and forms.

Every request is drawn from a seed. Knows bodies; knows no sockets.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

_WORDS = (
    "a able about bread bridge cloud cold door early east every field five garden green "
    "harbour house iron journey kind lamp late letter light little market morning mountain "
    "never night north often old open paper quiet rain river road salt seven ship silver slow "
    "small stone street summer table tall teacher three town tree under valley warm water "
    "west white window winter wood yellow"
)
_TOOL = {
    "name": "weather",
    "description": "Tells the weather of a town.",
    "parameters": {
        "type": "object",
        "properties": {
            "town": {"type": "string", "maxLength": 12},
            "unit": {"type": "string", "enum": ["C", "F"]},
        },
        "required": ["town", "unit"],
        "additionalProperties": False,
    },
}
_SCHEMAS = (
    {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}},
     "required": ["n"], "additionalProperties": False},
    {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 1, "maxItems": 4},
    {"type": "string", "maxLength": 16},
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is posted to ``path``. ``streams``: whether the answer comes in pieces."""

    kind: str
    path: str
    body: bytes
    streams: bool


def question(random: random.Random) -> Question:
    """The next one. About half of the prompts begin alike, as chats that go on do."""
    kind = random.choice(tuple(_KINDS))
    path, body = _KINDS[kind](random)
    streams = body.get("stream", path.startswith("/api/"))
    return Question(kind=kind, path=path, body=json.dumps(body).encode(), streams=streams)


def plain_question(seed: int, new_tokens: int) -> Question:
    """A completion of so many tokens and a short prompt of its own, streamed."""
    body = {
        "model": "any", "prompt": f"{seed}: {_words(random.Random(seed), 24)}", "stream": True,
        "max_tokens": new_tokens, "temperature": 0, "ignore_eos": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    return Question(
        kind="plain", path="/v1/completions", body=json.dumps(body).encode(), streams=True
    )


def _words(random: random.Random, count: int) -> str:
    return " ".join(random.choices(_WORDS.split(), k=count))


def _prompt(draw: random.Random) -> str:
    """Some begin with one of eight beginnings, so that the cache has something to find."""
    length = draw.choice((4, 12, 40, 120))
    if draw.random() < 0.5:
        beginning = random.Random(draw.randrange(8))
        return f"{_words(beginning, 80)} {_words(draw, min(length, 80))}"  # tools come, too
    return _words(draw, length)


def _turns(random: random.Random) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = [{"role": "user", "content": _prompt(random)}]
    if random.random() < 0.3:
        turns += [{"role": "assistant", "content": _words(random, 20)},
                  {"role": "user", "content": _words(random, 5)}]  # fmt: skip
    return turns


def _sampling(random: random.Random) -> dict[str, Any]:
    given: dict[str, Any] = {"temperature": random.choice((0, 0.7, 1))}
    if random.random() < 0.3:
        given["seed"] = random.randrange(1000)
    if random.random() < 0.3:
        given["top_p"] = 0.9
    return given


def _tokens(random: random.Random) -> int:
    return random.choice((1, 8, 24, 64))


def _chat(random: random.Random, **more: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/chat/completions", {
        "model": "any", "messages": _turns(random), "stream": random.random() < 0.7,
        "max_tokens": _tokens(random), **_sampling(random), **more,
    }  # fmt: skip


def _chat_of_several(random: random.Random) -> tuple[str, dict[str, Any]]:
    return _chat(random, n=random.choice((2, 3)), logprobs=True, top_logprobs=3)


def _chat_with_tools(random: random.Random) -> tuple[str, dict[str, Any]]:
    named = {"type": "function", "function": {"name": "weather"}}
    choice: Any = random.choice(("auto", "required", named))
    return _chat(random, tools=[{"type": "function", "function": _TOOL}], tool_choice=choice)


def _chat_of_a_form(random: random.Random) -> tuple[str, dict[str, Any]]:
    schema = dict(random.choice(_SCHEMAS))
    if random.random() < 0.1:  # one that nobody has asked for before
        schema["description"] = str(random.random())
        if schema["type"] == "string":
            schema["maxLength"] = random.randrange(1, 200)
    return _chat(
        random,
        response_format={"type": "json_schema", "json_schema": {"name": "form", "schema": schema}},
    )


def _completion(random: random.Random) -> tuple[str, dict[str, Any]]:
    prompts = [_prompt(random) for _ in range(random.choice((1, 1, 1, 3)))]
    return "/v1/completions", {
        "model": "any", "prompt": prompts if len(prompts) > 1 else prompts[0],
        "stream": random.random() < 0.5, "max_tokens": _tokens(random),
        "stop": random.choice((None, " the", ["\n", ". "])), **_sampling(random),
    }  # fmt: skip


def _chat_of_an_expression(random: random.Random) -> tuple[str, dict[str, Any]]:
    return _chat(
        random,
        structured_outputs={"regex": rf"[a-z]{{{random.randrange(2, 12)}}}-[0-9]{{1,4}}"},
    )


def _responses(random: random.Random) -> tuple[str, dict[str, Any]]:
    body: dict[str, Any] = {
        "model": "any", "input": _prompt(random), "stream": random.random() < 0.7, "store": False,
        "max_output_tokens": max(16, _tokens(random)),
    }  # fmt: skip
    if random.random() < 0.4:
        body["tools"] = [{"type": "function", **_TOOL}]
        body["tool_choice"] = random.choice(("auto", "required"))
    return "/v1/responses", body


def _messages(random: random.Random) -> tuple[str, dict[str, Any]]:
    body: dict[str, Any] = {
        "model": "any", "messages": _turns(random), "stream": random.random() < 0.7,
        "max_tokens": _tokens(random), "system": _words(random, 6),
    }  # fmt: skip
    if random.random() < 0.4:
        body["tools"] = [{"name": _TOOL["name"], "description": _TOOL["description"],
                          "input_schema": _TOOL["parameters"]}]  # fmt: skip
        body["tool_choice"] = {"type": random.choice(("auto", "any"))}
    return "/v1/messages", body


def _ollama(random: random.Random) -> tuple[str, dict[str, Any]]:
    options = {"num_predict": _tokens(random), "seed": random.randrange(1000)}
    if random.random() < 0.5:
        return "/api/generate", {"model": "any", "prompt": _prompt(random), "options": options}
    return "/api/chat", {"model": "any", "messages": _turns(random), "options": options,
                         "stream": random.random() < 0.7}  # fmt: skip


def _embeddings(random: random.Random) -> tuple[str, dict[str, Any]]:
    return "/v1/embeddings", {
        "model": "any", "input": [_prompt(random) for _ in range(random.choice((1, 2)))],
        "encoding_format": random.choice(("float", "base64")),
    }  # fmt: skip


_KINDS = {
    "chat": _chat,
    "chat of several": _chat_of_several,
    "chat with tools": _chat_with_tools,
    "chat of a form": _chat_of_a_form,
    "completion": _completion,
    "chat of an expression": _chat_of_an_expression,
    "responses": _responses,
    "messages": _messages,
    "ollama": _ollama,
    "embeddings": _embeddings,
}
