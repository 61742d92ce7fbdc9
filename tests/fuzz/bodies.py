"""Damaged and hostile bodies for every endpoint of the server, over a scripted engine:
`python -m tests.fuzz.bodies --inputs 100000 --seed 1`.

Nothing may be answered with a 500, hang, or grow, and every error must have its protocol's shape.
Every input is made from the seed and its number alone. Exit status 1 where any failed.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bandweave.generation.request import Request
from bandweave.serving.answers.syntaxes import find_syntax
from bandweave.text.chat_template import ChatTemplate
from bandweave.text.tokenizer import Tokenizer
from tests.fuzz.files import peak_bytes
from tests.fuzz.mutations import Mutator
from tests.helpers.chat_models import THINKER
from tests.helpers.scripted_engine import Script
from tests.helpers.server import ServerThread, served_by

_SECONDS = 20.0  # until an input counts as hung
_MOST_GROWTH_BYTES = 256 << 20
_RAW = 0.15  # share of inputs of which bytes are changed
_TOOL = {
    "type": "function",
    "function": {"name": "find", "description": "x", "parameters": {
        "type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}},
}  # fmt: skip
_CALL = {"id": "call_12345678", "type": "function",
         "function": {"name": "find", "arguments": "{\"a\": \"b\"}"}}  # fmt: skip
_SAMPLING = {
    "max_tokens": 4, "temperature": 0.7, "top_p": 0.9, "top_k": 4, "min_p": 0.1, "seed": 3,
    "frequency_penalty": 0.1, "presence_penalty": -0.1, "repetition_penalty": 1.1,
    "stop": ["x", "yz"], "logit_bias": {"5": 1.5}, "n": 2, "user": "anna",
}  # fmt: skip

#: Sound bodies, by path.
SEEDS: Sequence[tuple[str, dict[str, Any]]] = (
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], **_SAMPLING}),
    ("/v1/chat/completions", {
        "model": "demo", "stream": True, "stream_options": {"include_usage": True},
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
            {"role": "user", "name": "anna", "content": "Hi"},
            {"role": "assistant", "content": None, "tool_calls": [_CALL]},
            {"role": "tool", "tool_call_id": "call_12345678", "content": "b"},
        ],
        "tools": [_TOOL], "tool_choice": "auto", "parallel_tool_calls": False, "max_tokens": 3,
    }),
    ("/v1/chat/completions", {
        "messages": [{"role": "user", "content": "Hi"}], "logprobs": True, "top_logprobs": 2,
        "response_format": {"type": "text"}, "reasoning_effort": "low",
        "max_completion_tokens": 3,
    }),
    ("/v1/chat/completions/input_tokens", {"messages": [{"role": "user", "content": "Hi"}]}),
    ("/v1/completions", {"prompt": ["Once", "Twice"], "echo": True, "stream": True, **_SAMPLING}),
    ("/v1/completions", {"prompt": [5, 6, 7], "logprobs": 3, "best_of": 1, "suffix": None}),
    ("/v1/completions", {"prompt": [[5, 6], [7]], "max_tokens": 0, "ignore_eos": True}),
    ("/v1/embeddings", {"input": ["a", "b"], "encoding_format": "base64"}),
    ("/v1/responses", {
        "stream": True, "instructions": "Be brief.", "max_output_tokens": 3, "store": False,
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
            {"type": "function_call", "call_id": "c1", "name": "find", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "b"},
        ],
        "tools": [{"type": "function", "name": "find", "parameters": {"type": "object"}},
                  {"type": "web_search"}],
        "reasoning": {"effort": "low"}, "text": {"format": {"type": "text"}},
    }),
    ("/v1/responses", {"input": "Hi", "temperature": 0, "include": [], "metadata": {"a": "b"}}),
    ("/v1/responses", {
        "max_output_tokens": 3, "tool_choice": "auto", "parallel_tool_calls": False,
        "include": ["reasoning.encrypted_content"], "reasoning": {"summary": "auto"},
        "input": [
            {"type": "additional_tools", "role": "developer", "tools": [
                {"type": "custom", "name": "exec", "description": "x", "format": {
                    "type": "grammar", "syntax": "lark", "definition": "start: /.+/"}}]},
            {"role": "user", "content": "Hi"},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
            {"type": "custom_tool_call", "call_id": "c1", "name": "exec", "input": "x"},
            {"type": "custom_tool_call_output", "call_id": "c1",
             "output": [{"type": "input_text", "text": "b"}]},
            {"type": "local_shell_call", "call_id": "c2", "action": {"command": ["ls"]}},
            {"type": "local_shell_call_output", "id": "c2", "output": "b"},
            {"type": "agent_message", "content": [{"type": "input_text", "text": "Go on."}]},
        ],
        "tools": [{"type": "namespace", "name": "mcp__a", "description": "x", "tools": [
            {"type": "function", "name": "find", "parameters": {"type": "object"}}]}],
    }),
    ("/v1/messages", {
        "model": "demo", "max_tokens": 3, "stream": True,
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "t1", "name": "find", "input": {"a": "b"}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "b"}]},
        ],
        "tools": [{"name": "find", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "auto"}, "stop_sequences": ["x"], "thinking": {"type": "disabled"},
    }),
    ("/v1/messages", {
        "model": "demo", "max_tokens": 3, "system": [{"type": "text", "text": "Be brief.",
                                                      "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "x"},
                {"type": "tool_use", "id": "t1", "name": "find", "input": {"a": "b"}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t1", "is_error": True,
                 "content": [{"type": "text", "text": "b"}]}, {"type": "text", "text": "Well?"}]},
        ],
        "tools": [{"name": "find", "input_schema": {"type": "object"}, "strict": True}],
        "thinking": {"type": "adaptive", "display": "omitted"}, "metadata": {"user_id": "u"},
        "output_config": {"effort": "low"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    }),
    ("/v1/messages/count_tokens", {"model": "demo", "messages": [{"role": "user",
                                                                  "content": "Hi"}]}),
    ("/api/chat", {"model": "demo", "messages": [{"role": "user", "content": "Hi"}],
                   "options": {"num_predict": 3, "seed": 1, "stop": ["x"]}, "think": False}),
    ("/api/generate", {"model": "demo", "prompt": "Hi", "stream": False, "system": "Be brief.",
                       "options": {"num_predict": 3, "temperature": 0.5}}),
    ("/api/embed", {"model": "demo", "input": ["a", "b"], "truncate": True, "keep_alive": "5m"}),
    ("/api/embeddings", {"model": "demo", "prompt": "a", "options": {"num_ctx": 64}}),
    ("/api/show", {"model": "demo"}),
    ("/tokenize", {"content": "Once", "with_pieces": True, "add_special": True}),
    ("/tokenize", {"prompt": "Once", "return_token_strs": True}),
    ("/detokenize", {"tokens": [5, 6, 7]}),
)  # fmt: skip


@dataclass
class Tally:
    """How inputs ended: by status, and what must not have been."""

    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0


def fuzz(inputs: int, seed: int, *, first: int = 0) -> Tally:
    """Posts so many inputs to a server in a thread of this process."""
    tally = Tally()
    template = ChatTemplate(THINKER)
    served = served_by(_play, context=1024, template=template, syntax=find_syntax(template))
    with _quiet("bandweave.serving"), ServerThread(served) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=_SECONDS)
        _post(connection, *_input(seed, first))  # what is loaded once does not count as growth
        before = peak_bytes()
        for number in range(first, first + inputs):
            path, body = _input(seed, number)
            start = time.monotonic()
            try:
                status, fault = _post(connection, path, body)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                status, fault = 0, f"{type(error).__name__}: {error}"
            tally.statuses[status] += 1
            tally.slowest = max(tally.slowest, time.monotonic() - start)
            if fault:
                tally.faults.append(f"{number}: {path} {body[:300]!r}: {fault}")
        if peak_bytes() - before > _MOST_GROWTH_BYTES:
            tally.faults.append(f"grew by {(peak_bytes() - before) / 1e6:.0f} MB")
        exchanges = server.app.state.exchanges
        deadline = time.monotonic() + _SECONDS
        while (server.engine.running or exchanges.answering) and time.monotonic() < deadline:
            time.sleep(0.01)
        if server.engine.running or exchanges.answering:
            tally.faults.append("answers go on behind their requests")
        connection.close()
    return tally


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """A log says nothing meanwhile: of 500s, which are faults here."""
    log = logging.getLogger(name)
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


def _play(request: Request, tokenizer: Tokenizer) -> Script:
    return Script(tokens=[token % 200 for token in request.tokens[:3]])


def _input(seed: int, number: int) -> tuple[str, bytes]:
    mutator = Mutator(seed * 1_000_003 + number)
    path, body = mutator.random.choice(SEEDS)
    changed = mutator.json(body, mutator.random.choice((1, 1, 2, 4)))
    content = json.dumps(changed).encode()
    if mutator.random.random() < _RAW:
        content = mutator.bytes(content, mutator.random.choice((1, 3)))
    return path, content


def _post(connection: http.client.HTTPConnection, path: str, body: bytes) -> tuple[int, str]:
    """The status, and what is wrong with the answer."""
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    status = answer.status
    if status >= 500:
        return status, content[:300].decode(errors="replace")
    if status == 200:
        return status, _wrong_answer(answer.getheader("content-type", ""), content)
    message = _message(path, content)
    if message is None:
        return status, f"an error without its shape: {content[:300]!r}"
    return status, "a message of several lines" if "\n" in message else ""


def _message(path: str, content: bytes) -> str | None:
    """Of an error in its protocol's shape; None where it has none."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        value = json.loads(content)
        error = value["error"]
        if path.startswith("/api/"):
            return error if isinstance(error, str) else None
        anthropics = path.startswith("/v1/messages")
        fields = {"type", "message"} if anthropics else {"message", "type", "param", "code"}
        if set(error) == fields and isinstance(error["message"], str):
            return error["message"]
    return None


def _wrong_answer(kind: str, content: bytes) -> str:
    texts = [content.decode()]
    if kind.startswith("application/x-ndjson"):
        texts = texts[0].splitlines()
    elif kind.startswith("text/event-stream"):
        lines = texts[0].splitlines()
        texts = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        named = any(line.startswith("event: ") for line in lines)
        if not named and texts.pop() != "[DONE]":
            return f"a stream that ended in {content[-300:]!r}"
    for text in texts:
        value = json.loads(text, parse_constant=_refuse)
        if value.get("error") or value.get("type") in ("error", "response.failed"):
            return f"an error in the midst: {text[:300]}"
    return ""


def _refuse(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Posts damaged and hostile bodies to a server.")
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(arguments)
    start = time.monotonic()
    tally = fuzz(args.inputs, args.seed)
    for fault in tally.faults[:50]:
        print(fault)
    shown = ", ".join(f"{count} x {status}" for status, count in sorted(tally.statuses.items()))
    print(f"{shown} in {time.monotonic() - start:.0f} s; the slowest took {tally.slowest:.2f} s")
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
