"""What programs send, in their own shapes: Codex, Claude Code and Open WebUI each call a tool and
come back with its result, over real sockets and a scripted engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from bandweave.generation.request import Request
from bandweave.serving.answers.syntaxes import find_syntax
from bandweave.text.chat_template import ChatTemplate
from bandweave.text.tokenizer import Tokenizer
from tests.helpers.chat_models import THINKER, joined
from tests.helpers.scripted_engine import Script
from tests.helpers.server import ServerThread, served_by

_CALLS = {
    "exec_command": {"cmd": "ls"},
    "apply_patch": {"input": "*** Begin Patch\n*** End Patch\n"},
    "mcp__files__read": {"path": "a"},
    "Bash": {"command": "ls", "description": "Lists."},
    "get_time": {},
}


def _play(request: Request, tokenizer: Tokenizer) -> Script:
    """Calls the tool that the last user's text names; goes on when there is a result."""
    text = tokenizer.decode(request.tokens, skip_special_tokens=False)
    asked = text.rsplit("<|user|>", 1)[-1]
    called = [name for name in _CALLS if asked.startswith("user") and f"use {name}" in asked]
    calls = [json.dumps({"name": name, "arguments": _CALLS[name]}) for name in called]
    said = "Hm.</think>Let me." + "".join(f"<tool_call>{call}</tool_call>" for call in calls)
    tokens = tokenizer.encode("<think>" + said if calls else "Done.", special_tokens=False)
    return Script(tokens=[*tokens, *tokenizer.eos_token_ids], reused=3)


@pytest.fixture(scope="module")
def server() -> Iterator[ServerThread]:
    template = ChatTemplate(THINKER)
    served = served_by(_play, context=8192, template=template, syntax=find_syntax(template))
    with ServerThread(served) as server:
        yield server


def _events(content: bytes) -> list[dict[str, Any]]:
    """Of a stream whose events have names."""
    found = []
    for event in content.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in event.splitlines())
        if lines:
            found.append(json.loads(lines["data"]))
            assert lines["event"] == found[-1]["type"]
    return found


def _prompt(server: ServerThread) -> str:
    tokens = server.engine.requests[-1].tokens
    return server.served.tokenizer.decode(tokens, skip_special_tokens=False)  # type: ignore[union-attr]


# --- Codex ---

_GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": 'start: "*** Begin Patch" /.*/s'}
_CODEX_TOOLS: list[dict[str, Any]] = [
    {"type": "function", "name": "exec_command", "description": "Runs.", "strict": False,
     "parameters": {"type": "object", "properties": {"cmd": {"type": "string"}},
                    "required": ["cmd"], "additionalProperties": False}},
    {"type": "custom", "name": "apply_patch", "description": "Patches.", "format": _GRAMMAR},
    {"type": "namespace", "name": "mcp__files", "description": "Files.", "tools": [
        {"type": "function", "name": "read", "description": "Reads.", "strict": False,
         "parameters": {"type": "object", "properties": {"path": {"type": "string"}}}}]},
    {"type": "web_search", "external_web_access": False},
    {"type": "image_generation", "output_format": "png"},
    {"type": "tool_search", "execution": "client", "description": "d",
     "parameters": {"type": "object", "properties": {}}},
    {"type": "local_shell"},
]  # fmt: skip
_CODEX: dict[str, Any] = {
    "model": "demo", "instructions": "You are Codex.", "tool_choice": "auto",
    "parallel_tool_calls": True, "store": False, "stream": True,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "include": ["reasoning.encrypted_content"], "prompt_cache_key": "0199-aa",
    "client_metadata": {"x-codex-installation-id": "0199-bb"},
}  # fmt: skip


@pytest.mark.parametrize("within", [False, True])
def test_codex(server: ServerThread, within: bool) -> None:
    def message(role: str, text: str) -> dict[str, Any]:
        content = [{"type": "input_text", "text": text}]
        return {"type": "message", "role": role, "content": content}

    names = ("exec_command", "apply_patch", "mcp__files__read")
    asked = " ".join(f"use {name}" for name in names)
    history = [message("developer", "<permissions>"), message("user", "<environment_context>"),
               message("user", asked)]  # fmt: skip
    body = {**_CODEX, "tools": _CODEX_TOOLS}
    if within:
        item = {"type": "additional_tools", "role": "developer", "tools": _CODEX_TOOLS}
        body, history = _CODEX, [item, *history]
    status, _, content = server.post("/v1/responses", {**body, "input": history})
    assert status == 200, content
    events = _events(content)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    items = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    last = events[-1]
    assert (last["type"], last["response"]["output"]) == ("response.completed", items)
    kinds = ["reasoning", "message", "function_call", "custom_tool_call", "function_call"]
    assert [item["type"] for item in items] == kinds
    assert items[3]["input"] == _CALLS["apply_patch"]["input"]
    told = [(item["name"], item.get("namespace")) for item in items[2:]]
    assert told == [("exec_command", None), ("apply_patch", None), ("read", "mcp__files")]
    results = []
    for item in items[2:]:
        kind = item["type"].replace("function_call", "function_call_output")
        kind = kind.replace("custom_tool_call", "custom_tool_call_output")
        results.append({"type": kind, "call_id": item["call_id"], "output": "a.py"})
    thoughts = {key: value for key, value in items[0].items() if key not in ("id", "status")}
    history += [thoughts, *items[1:], *results]
    status, _, content = server.post("/v1/responses", {**body, "input": history})
    assert status == 200, content
    assert _events(content)[-1]["response"]["output"][0]["content"][0]["text"] == "Done."
    prompt = _prompt(server)
    assert "<think>Hm.</think>Let me.<tool_call>exec_command cmd</tool_call>" in prompt
    assert "<tool_call>mcp__files__read path</tool_call>" in prompt
    assert prompt.count("<|user|>tool: a.py<|end|>") == 3


# --- Claude Code ---

_CACHED = {"cache_control": {"type": "ephemeral"}}
_CLAUDE: dict[str, Any] = {
    "model": "demo", "max_tokens": 4000, "stream": True, "temperature": 1,
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.332.1; cch=00;"},
        {"type": "text", "text": "You are Claude Code.", **_CACHED},
        {"type": "text", "text": "Be brief.", **_CACHED},
    ],
    "tools": [{"name": "Bash", "description": "Runs.", "eager_input_streaming": True,
               "input_schema": {"$schema": "https://json-schema.org/draft/2020-12/schema",
                                "type": "object", "additionalProperties": False,
                                "properties": {"command": {"type": "string"},
                                               "description": {"type": "string"}},
                                "required": ["command"]}}],
    "thinking": {"type": "adaptive"}, "output_config": {"effort": "high"},
    "metadata": {"user_id": '{"device_id":"0","session_id":"1"}'},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
}  # fmt: skip
_CLAUDES_HEADERS = {
    "anthropic-version": "2023-06-01", "authorization": "Bearer none", "x-app": "cli",
    "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14,"
                      "context-management-2025-06-27,mid-conversation-system-2026-04-07",
}  # fmt: skip


def test_claude_code(server: ServerThread) -> None:
    path = "/v1/messages?beta=true"
    asked = [{"type": "text", "text": "<system-reminder>x</system-reminder>"},
             {"type": "text", "text": "use Bash", **_CACHED}]  # fmt: skip
    messages: list[dict[str, Any]] = [{"role": "user", "content": asked}]
    status, _, content = server.post(path, {**_CLAUDE, "messages": messages}, _CLAUDES_HEADERS)
    assert status == 200, content
    blocks: list[dict[str, Any]] = []
    for event in _events(content):
        if event["type"] == "content_block_start":
            blocks.append(dict(event["content_block"]))
        elif event["type"] == "content_block_delta":
            ((name, piece),) = ((k, v) for k, v in event["delta"].items() if k != "type")
            block = blocks[event["index"]]
            block[name] = block.get(name, "") + piece
    block = blocks[-1]
    block["input"] = json.loads(block.pop("partial_json"))
    assert [one["type"] for one in blocks] == ["thinking", "text", "tool_use"]
    assert block["input"] == _CALLS["Bash"]
    result = {"type": "tool_result", "tool_use_id": block["id"], "is_error": False,
              "content": [{"type": "text", "text": "a.py"}], **_CACHED}  # fmt: skip
    messages += [{"role": "assistant", "content": blocks}, {"role": "user", "content": [result]},
                 {"role": "system", "content": "The date has changed."}]  # fmt: skip
    body = {**_CLAUDE, "messages": messages}
    status, _, content = server.post(path, body, _CLAUDES_HEADERS)
    assert status == 200, content
    assert _events(content)[-2]["delta"]["stop_reason"] == "end_turn"
    prompt = _prompt(server)
    assert "billing" not in prompt and "system: You are Claude Code.\n\nBe brief.<|end|>" in prompt
    assert "<think>Hm.</think>Let me.<tool_call>Bash command description</tool_call>" in prompt
    assert prompt.endswith(
        "tool: a.py<|end|><|user|>user: The date has changed.<|end|><|assistant|>"
    )
    counted = {key: body[key] for key in ("model", "system", "tools", "messages", "thinking")}
    counted["messages"] = messages
    _, _, content = server.post("/v1/messages/count_tokens?beta=true", counted, _CLAUDES_HEADERS)
    assert json.loads(content) == {"input_tokens": len(server.engine.requests[-1].tokens)}


@pytest.mark.parametrize("kind", ["image", "document"])
def test_what_claude_code_shows_that_no_text_can_say_is_refused(
    server: ServerThread, kind: str
) -> None:
    used = {"type": "tool_use", "id": "t1", "name": "Bash", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": kind}]}
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": [used]},
                {"role": "user", "content": [result]}]  # fmt: skip
    status, _, content = server.post("/v1/messages", {**_CLAUDE, "messages": messages})
    error = json.loads(content)["error"]
    assert (status, error["type"]) == (400, "invalid_request_error")
    assert error["message"].startswith("messages[2].content[0].content[0].type is not supported")


# --- Open WebUI ---


def test_open_webui(server: ServerThread) -> None:
    tool = {"type": "function", "function": {"name": "get_time", "description": "The time.",
            "parameters": {"type": "object", "properties": {}, "required": []}}}  # fmt: skip
    body: dict[str, Any] = {
        "model": "demo", "stream": True, "stream_options": {"include_usage": True},
        "temperature": 0.7, "top_p": 0.9, "seed": 1, "stop": ["STOP"], "tools": [tool],
        "messages": [{"role": "system", "content": "User Context:"},
                     {"role": "user", "content": "use get_time"}],
    }  # fmt: skip

    def streamed() -> dict[str, Any]:
        headers = {"Authorization": "Bearer none", "X-OpenWebUI-Chat-Id": "c"}
        status, _, content = server.post("/v1/chat/completions", body, headers)
        assert status == 200, content
        lines = [line for line in content.decode().split("\n\n") if line]
        assert lines.pop() == "data: [DONE]"
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines]
        assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["total_tokens"] > 0
        return joined(chunks)

    choice = streamed()
    assert choice["finish_reason"] == "tool_calls"
    message = choice["message"]
    (call,) = message["tool_calls"]
    assert call["function"] == {"name": "get_time", "arguments": "{}"}
    body["messages"] += [
        {"role": "assistant", "content": message["content"], "tool_calls": [{"index": 0, **call}],
         "reasoning_content": message["reasoning_content"]},
        {"role": "tool", "tool_call_id": call["id"], "content": "12:00"},
    ]  # fmt: skip
    assert streamed()["message"]["content"] == "Done."
    assert "<think>Hm.</think>Let me.<tool_call>get_time</tool_call>" in _prompt(server)
    # Titles and tags are asked for beside every answer, and no tool is at hand then.
    title = {"model": "demo", "messages": body["messages"][:2], "stream": False, "tools": [],
             "max_completion_tokens": 1000}  # fmt: skip
    status, _, content = server.post("/v1/chat/completions", title)
    assert (status, json.loads(content)["choices"][0]["finish_reason"]) == (200, "stop")
