"""Anthropic's, Ollama's and OpenAI's newer protocol on a real socket, over a scripted engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from bandweave.executors.executor import StepError
from bandweave.generation.request import Request
from bandweave.serving.answers.admission import Admission
from bandweave.serving.answers.syntaxes import find_syntax
from bandweave.serving.http.keys import read_keys
from bandweave.text.chat_template import ChatTemplate
from bandweave.text.tokenizer import Tokenizer
from tests.helpers.scripted_engine import Script
from tests.helpers.server import ServerThread, served_by

_USER = {"role": "user", "content": "Hi"}
_BODIES: dict[str, dict[str, Any]] = {
    "/v1/messages": {"model": "demo", "max_tokens": 30, "messages": [_USER]},
    "/v1/responses": {"model": "demo", "input": "Hi"},
    "/api/chat": {"model": "demo", "messages": [_USER], "stream": False},
    "/api/generate": {"model": "demo", "prompt": "Hi", "stream": False},
}
_PATHS = tuple(_BODIES)
_TOKENIZER = served_by(lambda request, tokenizer: Script(tokens=())).tokenizer
_ANTHROPIC = {"anthropic-version": "2023-06-01"}


def _play(request: Request, tokenizer: Tokenizer) -> Script:
    """Hello; a prompt that asks for it is answered late, or by an engine that fails."""
    asked = tokenizer.decode(request.tokens)
    failure = StepError("node 1 is gone") if "fail" in asked else None
    tokens = [*tokenizer.encode("Hello there!", special_tokens=False), tokenizer.eos_token_ids[0]]
    return Script(tokens=tokens[:3] if failure else tokens, failure=failure, reused=3,
                  reading=0.2 if "wait" in asked else 0.0)  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[ServerThread]:
    with ServerThread(served_by(_play)) as server:
        yield server


def _said(path: str, content: bytes) -> str:
    answer = json.loads(content)
    if path == "/v1/messages":
        return answer["content"][0]["text"]
    if path == "/v1/responses":
        return answer["output"][0]["content"][0]["text"]
    return answer["message"]["content"] if path == "/api/chat" else answer["response"]


def _message(path: str, content: bytes) -> str:
    """What an error says; its shape is the path's."""
    answer = json.loads(content)
    if path.startswith("/api/"):
        assert list(answer) == ["error"]
        return answer["error"]
    if path == "/v1/messages":
        assert (answer["type"], set(answer)) == ("error", {"type", "error", "request_id"})
        assert set(answer["error"]) == {"type", "message"}
    else:
        assert set(answer["error"]) == {"message", "type", "param", "code"}
    return answer["error"]["message"]


def _with_text(path: str, text: str) -> dict[str, Any]:
    message = {"role": "user", "content": text}
    asked = {"messages": [message]} if "messages" in _BODIES[path] else {}
    name = "input" if path == "/v1/responses" else "prompt"
    return {**_BODIES[path], **(asked or {name: text})}


@pytest.mark.parametrize("path", _PATHS)
def test_an_answer_in_one_piece_and_in_pieces(server: ServerThread, path: str) -> None:
    status, headers, content = server.post(path, _BODIES[path])
    assert (status, headers["content-type"]) == (200, "application/json")
    assert _said(path, content) == "Hello there!"
    status, headers, content = server.post(path, {**_BODIES[path], "stream": True})
    lines = path.startswith("/api/")
    kind = "application/x-ndjson" if lines else "text/event-stream"
    assert headers["content-type"].startswith(kind)
    assert status == 200
    if lines:
        told = [json.loads(line) for line in content.splitlines()]
        name = "response" if path == "/api/generate" else "message"
        assert [one["done"] for one in told] == [False] * (len(told) - 1) + [True]
        assert all(name in one for one in told)


def test_ollamas_answers_stream_unless_they_are_asked_not_to(server: ServerThread) -> None:
    body = {name: value for name, value in _BODIES["/api/chat"].items() if name != "stream"}
    _, headers, content = server.post("/api/chat", body)
    assert headers["content-type"] == "application/x-ndjson"
    assert len(content.splitlines()) > 1


def test_events_of_a_message(server: ServerThread) -> None:
    body = {**_BODIES["/v1/messages"], "stream": True}
    sent = {**_ANTHROPIC, "anthropic-beta": "new-2099-01-01"}
    _, headers, content = server.post("/v1/messages?beta=true", body, sent)
    assert headers["request-id"].startswith("req_")
    names = [line[7:] for line in content.decode().splitlines() if line.startswith("event: ")]
    assert names[:2] == ["message_start", "content_block_start"]
    assert set(names[2:-3]) == {"content_block_delta"}
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]


@pytest.mark.parametrize("path", _PATHS)
def test_silence_is_broken_as_the_protocol_can(
    server: ServerThread, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bandweave.serving.http.stream.SILENCE_SECONDS", 0.02)
    monkeypatch.setattr("bandweave.serving.http.stream._FIRST_SECONDS", 0.01)
    _, _, content = server.post(path, {**_with_text(path, "wait"), "stream": True})
    if path.startswith("/api/"):
        assert content.startswith(b"  ")
        assert [json.loads(line) for line in content.splitlines()][-1]["done"]
    elif path == "/v1/messages":
        assert content.count(b'event: ping\ndata: {"type": "ping"}\n\n') > 1
    else:
        assert content.count(b"\n: ") + content.startswith(b": ") > 1


@pytest.mark.parametrize("path", _PATHS)
def test_a_failure_in_the_midst_of_a_stream_is_told(server: ServerThread, path: str) -> None:
    _, _, content = server.post(path, {**_with_text(path, "fail"), "stream": True})
    last = json.loads(content.splitlines()[-1 if path.startswith("/api/") else -2].removeprefix(
        b"data: "))  # fmt: skip
    if path == "/v1/messages":
        assert content.split(b"\n\n")[-2].startswith(b"event: error\n")
        assert last["error"]["type"] == "overloaded_error"
        message = last["error"]["message"]
    elif path == "/v1/responses":
        assert last["type"] == "response.failed"
        message = last["response"]["error"]["message"]
    else:
        message = last["error"]
    assert "node 1 is gone" in message


@pytest.mark.parametrize("path", _PATHS)
def test_a_failure_of_an_unstreamed_answer_is_an_error(server: ServerThread, path: str) -> None:
    status, headers, content = server.post(path, _with_text(path, "fail"))
    assert status == (529 if path == "/v1/messages" else 503)
    assert "node 1 is gone" in _message(path, content)
    assert int(headers["retry-after"]) > 0


@pytest.mark.parametrize("path", _PATHS)
def test_errors_have_the_shape_of_their_protocol(server: ServerThread, path: str) -> None:
    cases: list[tuple[int, str, Any, dict[str, str]]] = [
        (400, "POST", {**_BODIES[path], "temperature": "warm", "options": "warm"}, {}),
        (400, "POST", b"{", {}),
        (404, "POST", {**_BODIES[path], "model": "other"}, {}),
        (405, "PUT", None, {}),
        (415, "POST", b"{}", {"Content-Type": "text/plain"}),
        (403, "POST", _BODIES[path], {"Origin": "http://elsewhere.example"}),
    ]
    for expected, method, body, headers in cases:
        if method == "POST":
            status, _, content = server.post(path, body, headers)
        else:
            status, _, content = server.ask(method, path, body, headers)
        assert status == expected
        assert _message(path, content)
    long = _with_text(path, "word " * 5000)
    status, _, content = server.post(path, long)
    assert status == 400
    message = _message(path, content)
    for words in ("prompt is too long: ", "maximum context length is", "available context size"):
        assert words in message


@pytest.mark.parametrize("path", _PATHS)
def test_whoever_has_no_key_is_told_so(path: str, tmp_path: Any) -> None:
    keys = tmp_path / "keys"
    keys.write_text("a-key-of-twenty-four-chars ann\n")
    keys.chmod(0o600)
    with ServerThread(served_by(_play), keys=read_keys(keys)) as server:
        status, _, content = server.post(path, _BODIES[path])
        assert status == 401
        assert "key" in _message(path, content)
        sent = {"x-api-key": "a-key-of-twenty-four-chars"}
        status, _, _ = server.post(path, _BODIES[path], sent)
        assert status == 200
        assert server.engine.requests[-1].key == "ann"


@pytest.mark.parametrize("path", _PATHS)
def test_too_many_are_turned_away(path: str) -> None:
    admission = Admission(most_requests=1)
    admission.enter("somebody", 1)
    with ServerThread(served_by(_play, admission=admission)) as server:
        status, headers, content = server.post(path, _BODIES[path])
    assert (status, "wait already" in _message(path, content)) == (429, True)
    assert int(headers["retry-after"]) >= 1
    if path == "/v1/messages":
        assert json.loads(content)["error"]["type"] == "rate_limit_error"


def test_the_billing_line_of_claude_code_does_not_change_the_prompt(server: ServerThread) -> None:
    for hash in ("eb6c6", "71fea"):
        billing = f"x-anthropic-billing-header: cc_version=2.1.177.01c; cch={hash};"
        system = [{"type": "text", "text": billing}, {"type": "text", "text": "You are kind."}]
        server.post("/v1/messages", {**_BODIES["/v1/messages"], "system": system})
    first, second = server.engine.requests[-2:]
    assert first.tokens == second.tokens


def test_tokens_are_counted_as_they_are_read(server: ServerThread) -> None:
    _, _, content = server.post("/v1/messages", _BODIES["/v1/messages"])
    usage = json.loads(content)["usage"]
    body = {"model": "demo", "messages": [_USER]}
    _, _, content = server.post("/v1/messages/count_tokens", body, _ANTHROPIC)
    counted = json.loads(content)
    assert counted == {"input_tokens": usage["input_tokens"] + usage["cache_read_input_tokens"]}
    _, _, content = server.post("/v1/responses/input_tokens", _BODIES["/v1/responses"])
    expected = {"object": "response.input_tokens", **counted}
    assert json.loads(content) == expected


@pytest.mark.parametrize("path", ["/v1/messages/count_tokens", "/v1/responses/input_tokens"])
def test_a_prompt_that_is_too_long_is_counted(server: ServerThread, path: str) -> None:
    body = _with_text(path.rpartition("/")[0], "word " * 5000)
    status, _, content = server.post(path, body)
    assert (status, json.loads(content)["input_tokens"] > 4096) == (200, True)


def test_a_budget_of_thought_is_below_the_limit(server: ServerThread) -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    body = {**_BODIES["/v1/messages"], "thinking": thinking}
    for limit, expected in ((1024, 400), (1025, 200), (4000, 200)):  # it cannot think at all
        assert server.post("/v1/messages", {**body, "max_tokens": limit})[0] == expected


def test_models_in_two_shapes_at_one_path(server: ServerThread) -> None:
    for path in ("/v1/models", "/v1/models/demo"):
        anthropics = json.loads(server.ask("GET", path, headers=_ANTHROPIC)[2])
        openais = json.loads(server.ask("GET", path)[2])
        if path == "/v1/models":
            assert (anthropics["has_more"], anthropics["first_id"]) == (False, "demo")
            anthropics, openais = anthropics["data"][0], openais["data"][0]
        assert (anthropics["type"], anthropics["id"]) == ("model", "demo")
        assert (openais["object"], openais["id"]) == ("model", "demo")
    status, _, content = server.ask("GET", "/v1/models/other", headers=_ANTHROPIC)
    assert status == 404
    assert json.loads(content)["error"]["type"] == "not_found_error"


def test_responses_are_not_kept(server: ServerThread) -> None:
    for method in ("GET", "DELETE"):
        status, _, content = server.ask(method, "/v1/responses/resp_1")
        assert status == 404
        assert "not kept" in _message("/v1/responses", content)
    status, _, content = server.post("/v1/responses/compact", _BODIES["/v1/responses"])
    assert (status, "not compacted" in _message("/v1/responses", content)) == (404, True)
    answer = json.loads(server.post("/v1/responses", {**_BODIES["/v1/responses"], "store": True,
                                                      "metadata": {"a": "b"}})[2])  # fmt: skip
    assert (answer["store"], answer["metadata"]) == (False, {"a": "b"})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("background", True),
        ("include", ["nothing.known"]),
        ("prompt_cache_retention", "24h"),
        ("stream_options", {"include_obfuscation": True}),
        ("top_logprobs", 21),
        ("max_output_tokens", 0),
        ("metadata", {"a": 1}),
        ("moderation", {"model": "m"}),
    ],
)
def test_what_responses_refuse(server: ServerThread, field: str, value: Any) -> None:
    status, _, content = server.post("/v1/responses", {**_BODIES["/v1/responses"], field: value})
    assert status == 400
    assert json.loads(content)["error"]["param"].startswith(field)


def test_what_ollamas_clients_look_for(server: ServerThread) -> None:
    for path in ("/api/tags", "/api/ps"):
        models = json.loads(server.ask("GET", path)[2])["models"]
        assert [one["name"] for one in models] == ["demo"]
    status, _, content = server.post("/api/show", {"model": "demo:latest"})
    shown = json.loads(content)
    assert (status, shown["capabilities"]) == (200, ["completion"])
    assert shown["model_info"]["unknown.context_length"] == 4096
    assert server.post("/api/show", {"model": "other"})[0] == 404
    version = json.loads(server.ask("GET", "/api/version")[2])["version"]
    assert tuple(map(int, version.split("."))) >= (0, 6, 4)  # what IDEs ask for
    assert server.ask("HEAD", "/")[0] == 200
    agent = {"User-Agent": "ollama-python/0.6.3"}
    assert server.ask("GET", "/", headers=agent)[2] == b"Ollama is running"
    status, _, content = server.post("/api/pull", {"model": "demo"})
    assert (status, _message("/api/pull", content)) == (404, "there is nothing at /api/pull")


def test_nothing_asked_is_answered_at_once(server: ServerThread) -> None:
    asked = len(server.engine.requests)
    for path, empty in (("/api/chat", {"messages": []}), ("/api/generate", {"prompt": ""})):
        answer = json.loads(server.post(path, {**_BODIES[path], **empty})[2])
        assert (answer["done"], answer["done_reason"]) == (True, "load")
    assert len(server.engine.requests) == asked


def test_a_raw_prompt_is_what_the_model_reads(server: ServerThread) -> None:
    body = {**_BODIES["/api/generate"], "prompt": "Once upon", "raw": True}
    assert server.post("/api/generate", body)[0] == 200
    tokens = tuple(_TOKENIZER.encode("Once upon"))
    assert server.engine.requests[-1].tokens == tokens
    assert server.post("/api/generate", {**body, "format": "json"})[0] == 200
    assert "%json" in server.engine.requests[-1].grammar


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("suffix", "x"),
        ("template", "{{ .Prompt }}"),
        ("context", [1, 2]),
        ("images", ["aa"]),
        ("truncate", True),
        ("top_logprobs", 3),
        ("keep_alive", 0),
    ],
)
def test_what_a_prompt_cannot_ask_for(server: ServerThread, field: str, value: Any) -> None:
    status, _, content = server.post("/api/generate", {**_BODIES["/api/generate"], field: value})
    assert status == 400
    assert field in _message("/api/generate", content)


# --- a model that thinks and calls tools ---

_TEMPLATE = (
    "{% if tools %}<|user|>Tools: {{ tools | tojson }}<tool_call></tool_call><|end|>{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}{% for c in m.tool_calls or [] %}"
    '<tool_call>{{ {"name": c.function.name, "arguments": c.function.arguments} | tojson }}'
    "</tool_call>{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_WRITTEN = (
    "<think>Hm, 東京.</think>Let me look."
    '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>'
    '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>'
)
_PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
_CITIES = [{"city": "Rome"}, {"city": "Oslo"}]


@pytest.fixture(scope="module")
def agent() -> Iterator[ServerThread]:
    def play(request: Request, tokenizer: Tokenizer) -> Script:
        text = tokenizer.decode(request.tokens, skip_special_tokens=False)
        written = "It is warm." if "warm in" in text else _WRITTEN
        tokens = tokenizer.encode(written, special_tokens=False)
        return Script(tokens=[*tokens, tokenizer.eos_token_ids[0]])

    template = ChatTemplate(_TEMPLATE)
    served = served_by(play, template=template, syntax=find_syntax(template))
    with ServerThread(served) as server:
        yield server


def _second_prompt(agent: ServerThread) -> str:
    """What the model reads when the results are there; all that it wrote before is in it."""
    first, second = agent.engine.requests[-2:]
    assert second.tokens[: len(first.tokens)] == first.tokens
    text = _TOKENIZER.decode(second.tokens, skip_special_tokens=False)
    assert _WRITTEN + "<|end|>" in text
    return text


_RESULTS = "<|tool|>warm in Rome<|end|><|tool|>warm in Oslo<|end|><|assistant|>"


@pytest.mark.parametrize("display", ["summarized", "omitted"])
def test_tools_of_a_message_there_and_back(agent: ServerThread, display: str) -> None:
    tool = {"name": "weather", "description": "d", "input_schema": _PARAMETERS}
    body = {**_BODIES["/v1/messages"], "max_tokens": 300, "tools": [tool],
            "thinking": {"type": "adaptive", "display": display}}  # fmt: skip
    answer = json.loads(agent.post("/v1/messages", body)[2])
    assert answer["stop_reason"] == "tool_use"
    kinds = [block["type"] for block in answer["content"]]
    assert kinds == ["thinking", "text", "tool_use", "tool_use"]
    assert answer["content"][0]["thinking"] == ("Hm, 東京." if display == "summarized" else "")
    calls = answer["content"][2:]
    assert [call["input"] for call in calls] == _CITIES
    assert answer["usage"]["output_tokens_details"]["thinking_tokens"] > 0
    results = [{"type": "tool_result", "tool_use_id": call["id"],
                "content": f"warm in {call['input']['city']}"} for call in calls]  # fmt: skip
    messages = [_USER, {"role": "assistant", "content": answer["content"]},
                {"role": "user", "content": results}]  # fmt: skip
    answer = json.loads(agent.post("/v1/messages", {**body, "messages": messages})[2])
    assert answer["content"] == [{"type": "text", "text": "It is warm."}]
    assert _second_prompt(agent).endswith(_RESULTS)


@pytest.mark.parametrize(
    "fields",
    [{}, {"reasoning": {"summary": "auto"}, "include": ["reasoning.encrypted_content"]}],
)
def test_tools_of_a_response_there_and_back(agent: ServerThread, fields: dict[str, Any]) -> None:
    tools = [{"type": "web_search"},
             {"type": "function", "name": "weather", "parameters": _PARAMETERS}]  # fmt: skip
    body = {**_BODIES["/v1/responses"], "tools": tools, **fields}
    answer = json.loads(agent.post("/v1/responses", body)[2])
    assert answer["status"] == "completed"
    output = answer["output"]
    kinds = [item["type"] for item in output]
    assert kinds == ["reasoning", "message", "function_call", "function_call"]
    if fields:
        assert output[0]["summary"] == [{"type": "summary_text", "text": "Hm, 東京."}]
        output[0]["summary"] = []  # what is packed is enough
    results = [{"type": "function_call_output", "call_id": call["call_id"],
                "output": f"warm in {json.loads(call['arguments'])['city']}"}
               for call in output[2:]]  # fmt: skip
    asked = {"role": "user", "content": "Hi"}
    answer = json.loads(
        agent.post("/v1/responses", {**body, "input": [asked, *output, *results]})[2]
    )
    assert answer["output"][0]["content"][0]["text"] == "It is warm."
    assert _second_prompt(agent).endswith(_RESULTS)


def test_tools_of_ollama_there_and_back(agent: ServerThread) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": _PARAMETERS}}
    body = {**_BODIES["/api/chat"], "tools": [tool], "think": True}
    message = json.loads(agent.post("/api/chat", body)[2])["message"]
    assert (message["thinking"], message["content"]) == ("Hm, 東京.", "Let me look.")
    arguments = [call["function"]["arguments"] for call in message["tool_calls"]]
    assert arguments == _CITIES
    results = [{"role": "tool", "tool_name": "weather", "content": f"warm in {one['city']}"}
               for one in arguments]  # fmt: skip
    answer = json.loads(
        agent.post("/api/chat", {**body, "messages": [_USER, message, *results]})[2]
    )
    assert answer["message"]["content"] == "It is warm."
    assert _second_prompt(agent).endswith(_RESULTS)
    shown = json.loads(agent.post("/api/show", {"model": "demo"})[2])
    assert shown["capabilities"] == ["completion", "tools", "thinking"]


def test_tools_for_a_model_that_knows_none_are_refused(server: ServerThread) -> None:
    function = {"name": "weather", "parameters": _PARAMETERS}
    tools = {
        "/v1/messages": {"name": "weather", "input_schema": _PARAMETERS},
        "/v1/responses": {"type": "function", **function},
        "/api/chat": {"type": "function", "function": function},
    }
    for path, tool in tools.items():
        status, _, content = server.post(path, {**_BODIES[path], "tools": [tool]})
        assert (status, "knows no tools" in _message(path, content)) == (400, True)
    assert server.post("/api/chat", {**_BODIES["/api/chat"], "think": True})[0] == 400
