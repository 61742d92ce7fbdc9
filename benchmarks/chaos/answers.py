"""What an answer says, apart from how it was cut into pieces, by whom and when.

Two answers to one question are equal if these texts are: every choice's text, thoughts, calls of
tools, log-probabilities and reason for its end, and how many tokens were counted. Names and times
that differ with each answer are left out. Knows the protocols; knows no sockets.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_VOLATILE = frozenset({
    "id", "call_id", "item_id", "created", "created_at", "completed_at", "system_fingerprint",
    "total_duration", "load_duration", "prompt_eval_duration", "eval_duration",
    "sequence_number", "encrypted_content", "signature",
})  # fmt: skip
_COUNTS = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")


class NoAnswer(ValueError):
    """An error in the place of an answer, or half of one."""


def told(path: str, content: bytes) -> str:
    """The text that stands for an answer. ``NoAnswer`` where there is none."""
    try:
        parts = list(_objects(content))
    except ValueError as error:
        raise NoAnswer(f"no JSON: {content[-300:]!r}") from error
    for part in parts:
        if part.get("error") or part.get("type") in ("error", "response.failed"):
            raise NoAnswer(f"an error: {json.dumps(part)[:300]}")
    if not parts:
        raise NoAnswer("it is empty")
    return json.dumps(_FOLDS[path](parts, content), sort_keys=True, ensure_ascii=False)


def says_something(line: bytes) -> bool:
    """Whether a line of a stream carries a part of the answer: comments, pings and spaces that
    keep a connection alive do not."""
    line = line.strip()
    if line.startswith(b"data:"):
        return b'"ping"' not in line and b"[DONE]" not in line
    return line.startswith(b"{")


def _objects(content: bytes) -> Iterator[dict[str, Any]]:
    """The JSON objects of a stream of events, of lines, or of an answer in one piece."""
    text = content.strip()
    if text.startswith(b"{") and b"\n" not in text:
        yield json.loads(text)
        return
    for line in text.split(b"\n"):
        line = line.strip()
        if line.startswith(b"data:"):
            line = line[5:].strip()
        if line.startswith(b"{"):
            yield json.loads(line)


def _chat(parts: list[dict[str, Any]], content: bytes) -> Any:
    choices: dict[int, dict[str, Any]] = defaultdict(dict)
    counts: dict[str, Any] = {}
    for part in parts:
        counts |= _counted(part)
        for one in part["choices"]:
            choice = choices[one["index"]]
            delta = one.get("delta") or one.get("message") or {}
            for name in ("content", "reasoning_content"):
                choice[name] = choice.get(name, "") + (delta.get(name) or "")
            for call in delta.get("tool_calls") or ():
                known = choice.setdefault("calls", {}).setdefault(str(call.get("index", 0)), {})
                for name, value in call["function"].items():
                    known[name] = known.get(name, "") + value
            logprobs = (one.get("logprobs") or {}).get("content") or []
            choice.setdefault("logprobs", []).extend(logprobs)
            choice["end"] = one.get("finish_reason") or choice.get("end")
    return _whole(choices, "end"), counts


def _completion(parts: list[dict[str, Any]], content: bytes) -> Any:
    choices: dict[int, dict[str, Any]] = defaultdict(dict)
    counts: dict[str, Any] = {}
    for part in parts:
        counts |= _counted(part)
        for one in part["choices"]:
            choice = choices[one["index"]]
            choice["text"] = choice.get("text", "") + one["text"]
            for name, values in (one.get("logprobs") or {}).items():
                choice.setdefault(name, []).extend(values or [])
            choice["end"] = one.get("finish_reason") or choice.get("end")
    return _whole(choices, "end"), counts


def _messages(parts: list[dict[str, Any]], content: bytes) -> Any:
    blocks: dict[int, dict[str, Any]] = defaultdict(dict)
    end: Any = None
    counts: dict[str, Any] = {}
    for part in parts:
        kind = part.get("type")
        if kind == "content_block_start":
            blocks[part["index"]] |= _steady(part["content_block"])
        elif kind == "content_block_delta":
            block = blocks[part["index"]]
            for name, value in _steady(part["delta"]).items():
                if name != "type":
                    block[name] = block.get(name, "") + value
        elif kind == "message_delta":
            end = part["delta"]
            counts |= _counted(part)
    if b"message_stop" not in content or end is None:
        raise NoAnswer("it has no end")
    return blocks, end, counts.get("output_tokens")


def _responses(parts: list[dict[str, Any]], content: bytes) -> Any:
    last = parts[-1]
    if last.get("type") not in ("response.completed", "response.incomplete"):
        raise NoAnswer("it has no end")
    response = last["response"]
    deltas = "".join(part["delta"] for part in parts
                     if str(part.get("type")).endswith("output_text.delta"))  # fmt: skip
    kept = {name: response[name] for name in ("output", "status", "incomplete_details")}
    return _steady(kept), deltas, _counted(response)


def _ollama(parts: list[dict[str, Any]], content: bytes) -> Any:
    if not parts[-1].get("done"):
        raise NoAnswer("it has no end")
    text = "".join((part.get("message") or {}).get("content", "") for part in parts)
    return text, parts[-1].get("done_reason"), parts[-1].get("eval_count")


def _whole(choices: Mapping[int, Mapping[str, Any]], end: str) -> Any:
    if not choices or not all(choice.get(end) for choice in choices.values()):
        raise NoAnswer("it has no end")
    return choices


def _counted(part: Mapping[str, Any]) -> dict[str, Any]:
    """Not how many of a prompt's tokens came from the cache: that is chance."""
    usage = part.get("usage") or {}
    return {name: usage[name] for name in _COUNTS if name in usage}


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _steady(one) for name, one in value.items() if name not in _VOLATILE}
    if isinstance(value, list):
        return [_steady(one) for one in value]
    return value


_FOLDS: Mapping[str, Callable[[list[dict[str, Any]], bytes], Any]] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _completion,
    "/v1/messages": _messages,
    "/v1/responses": _responses,
    "/api/chat": _ollama,
}
