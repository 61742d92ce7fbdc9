"""Clients of a server whose nodes die and hang get the bytes that they would have got."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bandweave.checkpoints.resolve import demo_folder
from tests.helpers.command import Command, start_command
from tests.test_serve_cli import Started

QUESTION = [{"role": "user", "content": "Tell me a long story about 17 + 25."}]
TOOL = {
    "type": "function",
    "function": {
        "name": "note",
        "parameters": {
            "type": "object",
            "properties": {"text": {"type": "string"}, "count": {"type": "integer"}},
            "required": ["text", "count"],
        },
    },
}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "words",
        "schema": {"type": "array", "items": {"type": "string"}, "minItems": 6},
    },
}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": QUESTION, "temperature": 0}),
    ("/v1/chat/completions", {"messages": QUESTION, "temperature": 1, "seed": 3, "n": 3}),
    ("/v1/chat/completions", {"messages": QUESTION, "temperature": 1, "seed": 4,
                              "logprobs": True, "top_logprobs": 3}),
    ("/v1/chat/completions", {"messages": QUESTION, "temperature": 1, "seed": 5,
                              "stop": ["4", "is"], "ignore_eos": False}),
    ("/v1/chat/completions", {"messages": QUESTION, "temperature": 1, "seed": 6,
                              "tools": [TOOL], "tool_choice": "required", "ignore_eos": False}),
    ("/v1/chat/completions", {"messages": QUESTION, "temperature": 1, "seed": 7,
                              "response_format": SCHEMA, "ignore_eos": False}),
    ("/v1/completions", {"prompt": "Once upon", "temperature": 1.2, "seed": 8,
                         "frequency_penalty": 0.4, "presence_penalty": 0.2}),
    ("/v1/messages", {"model": "demo", "messages": QUESTION, "max_tokens": 100,
                      "temperature": 0}),  # it has no seed
]  # fmt: skip
_OWN = ("id", "created", "item_id", "created_at")


def plain(value: Any) -> Any:
    """Without names and times, which no two answers share."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items() if key not in _OWN}
    return [plain(one) for one in value] if isinstance(value, list) else value


class Client(threading.Thread):
    """One streamed answer; ``events`` are what has come of it."""

    def __init__(self, port: int, path: str, fields: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self._port, self._path = port, path
        self._fields = {"max_tokens": 100, "ignore_eos": True, **fields, "stream": True}
        self.events: list[Any] = []
        self.status, self.over = 0, False
        self.start()

    def run(self) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)) as connection:
            connection.request("POST", self._path, json.dumps(self._fields))
            answer = connection.getresponse()
            self.status = answer.status
            if answer.status != 200:
                self.events.append(answer.read())
            while line := answer.readline():
                text = line.decode().strip()
                if text.startswith("data: "):
                    data = text.removeprefix("data: ")
                    self.events.append(data if data == "[DONE]" else plain(json.loads(data)))
            self.over = True

    @property
    def text(self) -> Any:
        """All that was said, whatever pieces it came in."""
        self.join(60)
        assert self.over and self.status == 200, (self.status, self.events[-3:])
        if self._path == "/v1/messages":
            return _messages(self.events)
        assert self.events[-1] == "[DONE]", self.events[-1]
        return _choices(self.events)


def _choices(events: list[Any]) -> Any:
    found: dict[int, dict[str, Any]] = {}
    for event in events[:-1]:
        for choice in event.get("choices", ()):
            one = found.setdefault(choice["index"], {"text": "", "logprobs": [], "calls": {}})
            delta = choice.get("delta", {})
            one["text"] += delta.get("content") or choice.get("text") or ""
            one["logprobs"] += (choice.get("logprobs") or {}).get("content") or []
            for call in delta.get("tool_calls") or ():
                one["calls"].setdefault(call["index"], []).append(call.get("function"))
            if choice.get("finish_reason"):
                one["reason"] = choice["finish_reason"]
    for one in found.values():
        assert one.get("reason")
        one["calls"] = {
            index: (parts[0].get("name"), "".join(part.get("arguments", "") for part in parts))
            for index, parts in one["calls"].items()
        }
    return found


def _messages(events: list[Any]) -> Any:
    assert events[-1]["type"] == "message_stop", events[-1]
    text = "".join(
        event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta"
    )
    (end,) = [event["delta"] for event in events if event["type"] == "message_delta"]
    return text, end


def tool_user(folder: Path) -> Path:
    """The demo model, with a template that knows tools."""
    shutil.copytree(demo_folder(), folder)
    file = folder / "tokenizer_config.json"
    fields = json.loads(file.read_text())
    tools = "{% if tools %}{{ tools | tojson }} <tool_call></tool_call>{% endif %}"
    file.write_text(json.dumps({**fields, "chat_template": tools + fields["chat_template"]}))
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Started, Command]]:
    model = tool_user(tmp_path_factory.mktemp("model") / "demo")
    with start_command(
        "serve", model, "--nodes", "3", "--threads", "1", "--listen", "127.0.0.1:0", "--json",
        "--speculate",
    ) as command:  # fmt: skip
        yield Started(command), command
        command.process.send_signal(signal.SIGINT)
        outcome = command.finish()
        assert "Traceback" not in outcome.err and command.none_left()


@pytest.fixture(scope="module")
def undisturbed(server: tuple[Started, Command]) -> list[Any]:
    return [client.text for client in [Client(server[0].port, *case) for case in CASES]]


def status(server: Started) -> dict[str, Any]:
    return json.loads(server.ask("GET", "/v1/status")[1])


def settled(server: Started) -> bool:
    members = status(server)["members"]
    return len(members) == 3 and all(one["state"] == "serving" for one in members)


@pytest.mark.parametrize(
    ("how", "nodes"), [(signal.SIGKILL, (1,)), (signal.SIGKILL, (0, 2)), (signal.SIGSTOP, (2,))]
)
def test_every_kind_of_client_gets_its_bytes(
    server: tuple[Started, Command],
    undisturbed: list[Any],
    how: signal.Signals,
    nodes: tuple[int, ...],
) -> None:
    started, command = server
    before = status(started)["recoveries_total"]
    clients = [Client(started.port, *case) for case in CASES]
    while sum(len(client.events) for client in clients) < 100:
        time.sleep(0.01)
    names = {one["node"]: one["name"] for one in status(started)["members"]}
    for node in nodes:
        os.kill(int(names[node].partition("pid ")[2].rstrip(")")), how)
    assert [client.text for client in clients] == undisturbed
    deadline = time.monotonic() + 30
    while not settled(started):
        assert time.monotonic() < deadline, status(started)["members"]
        time.sleep(0.1)
    told = status(started)
    assert told["recoveries_total"] > before and told["outage"] is None
    first = told["recoveries"][before]
    assert first["kind"] == "failed" and first["over"]
    assert first["seconds"]["total"] < (3 if how == signal.SIGKILL else 9)
    metrics = started.ask("GET", "/metrics")[1].decode()
    assert f"bandweave_recoveries_total {float(told['recoveries_total'])}" in metrics
    assert 'bandweave_last_recovery_seconds{part="loaded"}' in metrics
