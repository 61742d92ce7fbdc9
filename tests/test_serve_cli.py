"""``bandweave serve`` as users start it: what it prints, how it goes on, and how it ends."""

from __future__ import annotations

import http.client
import json
import os
import shlex
import signal
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bandweave.cli import serve
from bandweave.cli.serving import example
from bandweave.executors.executor import PAGE_SIZE
from tests.helpers.command import Command, start_command

KEY = "anna-0123456789abcdef"
CHAT = {"messages": [{"role": "user", "content": "Hi"}]}


class Started:
    """A server of a command that has said that it is ready."""

    def __init__(self, command: Command) -> None:
        self.command = command
        text = b""
        assert command.process.stdout is not None
        while not text.rstrip().endswith(b"}"):
            piece = command.process.stdout.read(1)
            assert piece, command.process.stderr.read() if command.process.stderr else b""
            text += piece
        self.said: dict[str, Any] = json.loads(text)
        self.port = int(self.said["base_url"].removesuffix("/v1").rpartition(":")[2])

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"X-Api-Key": KEY})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def chat(self, messages: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
        """Eight tokens, the likeliest, with their log-probabilities."""
        body = {"messages": messages, "max_tokens": 8, "temperature": 0, "logprobs": True, **fields}
        status, content = self.ask("POST", "/v1/chat/completions", body)
        assert status == 200, content
        return json.loads(content)

    def stream(self, **fields: Any) -> tuple[http.client.HTTPConnection, Any]:
        """One that has begun."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        body = json.dumps({**CHAT, "stream": True, "ignore_eos": True, **fields})
        connection.request("POST", "/v1/chat/completions", body, {"X-Api-Key": KEY})
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.readline().startswith(b"data: ")
        return connection, answer


def test_a_server_from_its_start_to_its_end(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY} anna\n")
    keys.chmod(0o600)
    with start_command(
        "serve", "demo", "--nodes", "2", "--threads", "1", "--listen", "127.0.0.1:0",
        "--key-file", keys, "--json",
    ) as command:  # fmt: skip
        server = Started(command)
        assert (server.said["model"], server.said["nodes"]) == ("demo", 2)
        status, content = server.ask("POST", "/v1/chat/completions", {**CHAT, "max_tokens": 5})
        assert status == 200
        before = json.loads(content)["choices"][0]["message"]["content"]
        assert server.ask("GET", "/health") == (200, b'{"status":"ok"}')

        # The second turn finds the first in the cache, and says what it says without.
        turns = [{"role": "user", "content": "Tell me of memory. " * 20}]
        first = server.chat(turns)
        turns += [first["choices"][0]["message"], {"role": "user", "content": "Go on."}]
        second, without = server.chat(turns), server.chat(turns, cache_prompt=False)
        pages = first["usage"]["prompt_tokens"] // PAGE_SIZE
        assert pages > 0
        assert second["usage"]["prompt_tokens_details"]["cached_tokens"] >= pages * PAGE_SIZE
        assert without["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
        assert second["choices"] == without["choices"]

        # A node is lost: whoever waits hears nothing of it, and others are answered the same.
        connection, answer = server.stream(n=8, max_tokens=60)
        os.kill(command.nodes()[1], signal.SIGKILL)
        assert answer.read().endswith(b"data: [DONE]\n\n")
        connection.close()
        asked = {**CHAT, "max_tokens": 5}
        assert server.ask("POST", "/v1/chat/completions", asked)[0] == 200
        assert server.ask("GET", "/health")[0] == 200
        _, content = server.ask("POST", "/v1/chat/completions", asked)
        assert json.loads(content)["choices"][0]["message"]["content"] == before

        connection, answer = server.stream(n=8)
        start = time.monotonic()
        command.process.send_signal(signal.SIGINT)
        last = answer.read().decode().strip().split("\n\n")[-1]
        connection.close()
        assert "the server is stopping" in last
        outcome = command.finish()
        assert (outcome.status, outcome.out.strip()) == (130, "")
        assert time.monotonic() - start < 8
        assert command.none_left()
        assert server.said["base_url"] in outcome.err
        assert "curl" in outcome.err and KEY not in outcome.err
        assert "going on without it" in outcome.err and "serving again" in outcome.err
        assert "Traceback" not in outcome.err


def test_sigterm_waits_for_an_answer_as_long_as_it_is_told() -> None:
    with start_command("serve", "demo", "--listen", "127.0.0.1:0", "--drain", "60", "--json") as it:
        server = Started(it)
        connection, answer = server.stream(max_tokens=100)
        it.process.send_signal(signal.SIGTERM)
        assert answer.read().endswith(b"data: [DONE]\n\n")
        connection.close()
        outcome = it.finish()
        assert outcome.status == 143
        assert it.none_left()


def test_without_any_node_it_starts_another() -> None:
    with start_command("serve", "demo", "--listen", "127.0.0.1:0", "--json") as it:
        server = Started(it)
        asked = {**CHAT, "max_tokens": 5}
        status, before = server.ask("POST", "/v1/chat/completions", asked)
        os.kill(it.nodes()[0], signal.SIGKILL)
        again, after = server.ask("POST", "/v1/chat/completions", asked)
        assert (status, again) == (200, 200)
        answers = [json.loads(one)["choices"][0]["message"]["content"] for one in (before, after)]
        assert answers[0] == answers[1]
        it.process.send_signal(signal.SIGINT)
        outcome = it.finish()
    assert outcome.status == 130
    assert "waiting for a machine" in outcome.err and "serving again, on 1 node" in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--listen", "0.0.0.0:0"), "give --key-file"),
        (("--listen", "[::]:0"), "give --key-file"),
        (("--listen", "8080"), "has no host"),
        (("--key-file", "/nowhere/keys"), "cannot be read"),
        (("--allow-origin", "chat.example.org"), "as browsers do"),
        (("--allow-host", "http://studio"), "the name alone"),
        (("--queue", "-1"), "--queue"),
        (("--drain", "-1"), "--drain"),
    ],
)
def test_mistakes_end_in_one_sentence(options: tuple[str, ...], words: str) -> None:
    result = CliRunner().invoke(serve.command, ["demo", *options])
    sentence = str(result.exception) if result.exit_code == 1 else result.output
    assert isinstance(result.exception, (ValueError, SystemExit))
    assert words in sentence
    assert result.exit_code == 2 or "\n" not in sentence


def test_hosts_beside_keys(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    options = ["demo", "--key-file", str(keys), "--allow-host", "studio"]
    result = CliRunner().invoke(serve.command, options)
    assert "--allow-host is for servers without keys" in str(result.exception)


def test_without_the_libraries_of_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "uvicorn" else name)
    result = CliRunner().invoke(serve.command, ["demo"])
    assert "pip install 'bandweave[serve]'" in str(result.exception)


@pytest.mark.parametrize("missing", ["opentelemetry.sdk", "opentelemetry"])
def test_without_the_libraries_for_traces(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    def find(name: str) -> str | None:
        if name.startswith("opentelemetry.") and missing == "opentelemetry":
            raise ModuleNotFoundError(name)
        return None if name == missing else name

    monkeypatch.setattr(serve, "find_spec", find)
    options = ["demo", "--otlp-traces-endpoint", "http://127.0.0.1:4318"]
    result = CliRunner().invoke(serve.command, options)
    assert "pip install 'bandweave[traces]'" in str(result.exception)


def test_help_fits_a_terminal() -> None:
    result = CliRunner().invoke(serve.command, ["--help"], terminal_width=80)
    assert all(len(line) <= 80 for line in result.output.splitlines())
    assert "--drain SECONDS" in result.output


@pytest.mark.parametrize("chats", [False, True])
@pytest.mark.parametrize("keys", [False, True])
def test_the_example_is_one_for_a_shell(chats: bool, keys: bool) -> None:
    line = example("http://127.0.0.1:8080/v1", chats=chats, keys=keys)
    words = shlex.split(line)
    assert words[0] == "curl" and words[1].startswith("http://127.0.0.1:8080/v1/")
    assert isinstance(json.loads(words[-1]), dict)
    assert subprocess.run(["sh", "-n", "-c", line], check=False).returncode == 0
