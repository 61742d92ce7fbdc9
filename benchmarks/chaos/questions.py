"""Questions that a server has one answer to, whatever happens to its nodes: by every protocol, with
every feature that a failure could lose.

All that chooses tokens is in a question (greedy, or a seed), so that an answer can be compared with
an earlier one, byte by byte. Knows bodies; knows no sockets.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bandweave.hub.resolve import resolve_model
from benchmarks.crowd import Question

_PLACES = ("harbour", "garden", "valley", "market", "bridge", "mountain", "river", "window")
_THINGS = ("lamp", "ship", "letter", "bread", "tree", "street", "cloud", "door")
_BEGINNING = " ".join(f"The {thing} stands by the {place}." for place in _PLACES
                      for thing in _THINGS)  # fmt: skip
_TOOL = {
    "name": "weather",
    "description": "Tells the weather of a town.",
    "parameters": {
        "type": "object",
        "properties": {
            "town": {"type": "string", "maxLength": 12},
            "days": {"type": "array", "items": {"type": "integer"}, "minItems": 20, "maxItems": 30},
        },
        "required": ["town", "days"],
        "additionalProperties": False,
    },
}
_FORM = {
    "type": "object",
    "properties": {
        "numbers": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 999},
                    "minItems": 20, "maxItems": 40},
        "name": {"type": "string", "maxLength": 40},
    },
    "required": ["numbers", "name"],
    "additionalProperties": False,
}  # fmt: skip
_TEMPLATE_OF_TOOLS = (
    "{%- if tools %}{{- '<|user|><tool_call>' }}"
    "{%- for tool in tools %}{{- tool | tojson }}{%- endfor %}{{- '<|end|>' }}{%- endif %}"
)

Body = dict[str, Any]


def questions(count: int, seed: int, new_tokens: int) -> list[Question]:
    """As many, the kinds in turn. Answers have ``new_tokens`` at most, most of them that many."""
    made = []
    kinds = list(KINDS)
    for number in range(count):
        kind = kinds[number % len(kinds)]
        path, body = KINDS[kind](random.Random(f"{seed} {number}"), new_tokens)
        streams = bool(body.get("stream"))
        content = json.dumps(body).encode()
        made.append(Question(kind=kind, path=path, body=content, streams=streams))
    return made


def demo_with_tools(holder: Path) -> Path:
    """The demo model in ``holder``, with a chat template that knows tools, as its own does not."""
    folder = holder / "demo"
    shutil.copytree(resolve_model("demo"), folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["chat_template"] = config["chat_template"].replace(
        "{%- for message", _TEMPLATE_OF_TOOLS + "{%- for message", 1
    )
    path.write_text(json.dumps(config))
    return folder


def _prompt(draw: random.Random) -> str:
    """Some have a long beginning, which they share."""
    own = (
        f"What is {draw.randrange(10, 99)} + {draw.randrange(10, 99)}, said the "
        f"{draw.choice(_THINGS)} in the {draw.choice(_PLACES)}?"
    )
    return f"{_BEGINNING[: draw.choice((300, 900, 1500))]} {own}" if draw.random() < 0.4 else own


def _sampled(draw: random.Random) -> Body:
    return {"temperature": draw.choice((0.7, 1.0, 1.3)), "seed": draw.randrange(1 << 30)}


def _chat(draw: random.Random, tokens: int, **more: Any) -> tuple[str, Body]:
    return "/v1/chat/completions", {
        "model": "any", "messages": [{"role": "user", "content": _prompt(draw)}], "stream": True,
        "stream_options": {"include_usage": True}, "max_tokens": tokens, "temperature": 0,
        "ignore_eos": True, **more,
    }  # fmt: skip


def _completion(draw: random.Random, tokens: int, **more: Any) -> tuple[str, Body]:
    return "/v1/completions", {
        "model": "any", "prompt": _prompt(draw), "stream": True, "max_tokens": tokens,
        "temperature": 0, "ignore_eos": True, **more,
    }  # fmt: skip


def _sampled_chat(draw: random.Random, tokens: int) -> tuple[str, Body]:
    return _chat(draw, tokens, **_sampled(draw))


def _penalties(draw: random.Random, tokens: int) -> tuple[str, Body]:
    more = {"frequency_penalty": 0.3, "presence_penalty": 0.2, "repeat_penalty": 1.05,
            "top_k": 40, "top_p": 0.95}  # fmt: skip
    return _chat(draw, tokens, **_sampled(draw), **more)


def _stops(draw: random.Random, tokens: int) -> tuple[str, Body]:
    return _chat(draw, tokens, **_sampled(draw), stop=["42", " the sea", "said the king"])


def _tools(draw: random.Random, tokens: int) -> tuple[str, Body]:
    named = {"type": "function", "function": {"name": "weather"}}
    tools = [{"type": "function", "function": _TOOL}]
    return _chat(
        draw, tokens, tools=tools, tool_choice=draw.choice(("required", named)), **_sampled(draw)
    )


def _form(draw: random.Random, tokens: int) -> tuple[str, Body]:
    form = {"type": "json_schema", "json_schema": {"name": "form", "schema": _FORM}}
    return _chat(draw, tokens, response_format=form, **_sampled(draw))


def _expression(draw: random.Random, tokens: int) -> tuple[str, Body]:
    return _chat(draw, tokens, structured_outputs={"regex": "([a-z]{3,9} ){20,60}"},
                 **_sampled(draw))  # fmt: skip


def _several(draw: random.Random, tokens: int) -> tuple[str, Body]:
    return _chat(draw, tokens // 2, n=3, logprobs=True, top_logprobs=3, **_sampled(draw))


def _scored(draw: random.Random, tokens: int) -> tuple[str, Body]:
    return _completion(draw, tokens, stream=False, echo=True, logprobs=3)


def _told(draw: random.Random, tokens: int) -> tuple[str, Body]:
    return _completion(draw, tokens, logprobs=2, n=2, **_sampled(draw))


def _messages(draw: random.Random, tokens: int) -> tuple[str, Body]:
    return "/v1/messages", {
        "model": "any", "messages": [{"role": "user", "content": _prompt(draw)}], "stream": True,
        "max_tokens": tokens, "temperature": 0,
    }  # fmt: skip


def _responses(draw: random.Random, tokens: int) -> tuple[str, Body]:
    return "/v1/responses", {
        "model": "any", "input": _prompt(draw), "stream": True, "store": False,
        "max_output_tokens": tokens, "temperature": 0,
    }  # fmt: skip


def _ollama(draw: random.Random, tokens: int) -> tuple[str, Body]:
    options = {"num_predict": tokens, "temperature": 0.9, "seed": draw.randrange(1 << 20)}
    return "/api/chat", {
        "model": "any", "messages": [{"role": "user", "content": _prompt(draw)}], "stream": True,
        "options": options,
    }  # fmt: skip


KINDS: Mapping[str, Callable[[random.Random, int], tuple[str, Body]]] = {
    "chat": _chat,
    "sampled": _sampled_chat,
    "penalties": _penalties,
    "tools": _tools,
    "schema": _form,
    "several": _several,
    "completion": _completion,
    "stop strings": _stops,
    "log-probabilities": _told,
    "expression": _expression,
    "scored prompt": _scored,
    "messages": _messages,
    "responses": _responses,
    "ollama": _ollama,
}
