"""Keys, hosts and origins: who may ask, and what browsers are told."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bandweave.serving.http.keys import Keys, read_keys
from bandweave.serving.http.origins import Origins
from tests.helpers.scripted_engine import Script
from tests.helpers.server import ServerThread, served_by

ANNA, BERT = "anna-0123456789abcdef", "bert-0123456789abcdef"
CHAT = {"messages": [{"role": "user", "content": "Hi"}]}


def key_file(folder: Path, text: str) -> Path:
    file = folder / "keys"
    file.write_text(text)
    file.chmod(0o600)
    return file


def served() -> Any:
    return served_by(lambda request, tokenizer: Script(tokens=tokenizer.encode("Hello")))


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerThread]:
    file = key_file(tmp_path_factory.mktemp("keys"), f"{ANNA} anna 2.5 # the elder\n\n{BERT}\n")
    with ServerThread(served(), keys=read_keys(file)) as server:
        yield server


@pytest.fixture(scope="module")
def open_to_all() -> Iterator[ServerThread]:
    origins = Origins(["Studio.local"], ["https://chat.example.org"])
    with ServerThread(served(), origins=origins) as server:
        yield server


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {ANNA}"},
        {"Authorization": f"bearer  {BERT}"},
        {"x-api-key": ANNA},
        {"Authorization": "Bearer wrong", "X-Api-Key": BERT},  # as programs send that have both
    ],
)
def test_a_key_in_either_header_lets_in(locked: ServerThread, headers: dict[str, str]) -> None:
    assert locked.post("/v1/chat/completions", CHAT, headers)[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": f"Bearer {ANNA}x"},
        {"Authorization": f"Bearer {ANNA[:-1]}"},
        {"Authorization": f"Basic {ANNA}"},
        {"Authorization": ANNA},
        {"Authorization": "Bearer "},
        {"x-api-key": ""},
        {"x-api-key": "\xff\xfe"},
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/nothing"])
def test_nobody_gets_in_without(locked: ServerThread, headers: dict[str, str], path: str) -> None:
    method = "GET" if path == "/v1/models" else "POST"
    status, found, content = locked.ask(method, path, b"{}", headers)
    assert (status, found["www-authenticate"]) == (401, "Bearer")
    error = json.loads(content)["error"]
    assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
    assert ANNA[:8] not in content.decode()


def test_health_needs_no_key(locked: ServerThread) -> None:
    assert locked.ask("GET", "/health")[0] == 200


def test_who_asks_reaches_the_engine_by_name_and_weight(locked: ServerThread) -> None:
    locked.post("/v1/chat/completions", CHAT, {"x-api-key": ANNA})
    request = locked.engine.requests[-1]
    assert (request.key, request.weight) == ("anna", 2.5)
    locked.post("/v1/chat/completions", CHAT, {"x-api-key": BERT})
    request = locked.engine.requests[-1]
    assert (request.key, request.weight) == ("key 3", 1.0)


def test_keys_never_come_to_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(request: Any, tokenizer: Any) -> Script:
        raise OSError("broken")

    file = key_file(tmp_path, ANNA)
    with caplog.at_level(logging.DEBUG), ServerThread(served_by(fail), keys=read_keys(file)) as one:
        status, _, content = one.post("/v1/chat/completions", CHAT, {"x-api-key": ANNA})
        assert (status, json.loads(content)["error"]["type"]) == (500, "server_error")
        one.post("/v1/chat/completions", CHAT, {"x-api-key": f"{ANNA}-wrong"})
    assert "broken" in caplog.text  # what went wrong is there
    captured = capfd.readouterr()
    assert ANNA not in caplog.text + captured.out + captured.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no key"),
        ("# none\n", "holds no key"),
        ("short name\n", "line 1 of the key file"),
        (f"{ANNA}\n{BERT} bert heavy\n", "third word"),
        (f"{ANNA} anna 0\n", "from 0.001 to 1000"),
        (f"{ANNA} anna nan\n", "from 0.001 to 1000"),
        (f"{ANNA} anna 1 more\n", "4 words"),
        (f"{ANNA} anna\n{ANNA} bert\n", "a key twice"),
        (f"{ANNA}é\n", "letters, digits and signs"),
        ("k" * 600, "600 characters"),
    ],
)
def test_key_files_that_are_none(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        read_keys(key_file(tmp_path, text))
    assert ANNA not in str(caught.value)


def test_a_key_file_that_others_can_read_or_nobody(tmp_path: Path) -> None:
    remarks: list[str] = []
    file = key_file(tmp_path, ANNA)
    assert read_keys(file, remarks.append) and not remarks
    file.chmod(0o644)
    assert read_keys(file, remarks.append)
    assert "chmod 600" in remarks[0]
    with pytest.raises(ValueError, match="cannot be read"):
        read_keys(tmp_path / "missing")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    descriptor = os.open(pipe, os.O_RDWR)  # as a shell's <(...) is open already
    os.write(descriptor, f"{ANNA}\n".encode())
    writer = threading.Timer(0.3, os.close, (descriptor,))
    writer.start()
    assert read_keys(pipe).find([ANNA.encode()])
    writer.join()


def test_keys_are_found_wherever_they_stand() -> None:
    assert not Keys() and Keys().find([b"any"]) is None


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:1234", 200),
        ("LOCALHOST.", 200),
        ("app.localhost:80", 200),
        ("127.0.0.1:9", 200),
        ("127.8.8.8", 200),
        ("[::1]:8080", 200),
        ("studio.local:8080", 200),
        ("evil.example.org", 403),
        ("evil.example.org:8080", 403),
        ("127.0.0.1.evil.org", 403),
        ("localhost.evil.org", 403),
        ("10.0.0.5", 403),
        ("", 403),
        ("[::2]", 403),
    ],
)
def test_only_hosts_that_mean_this_machine(
    open_to_all: ServerThread, host: str, status: int
) -> None:
    assert open_to_all.ask("GET", "/v1/models", headers={"Host": host})[0] == status


def test_with_keys_any_host_does(locked: ServerThread) -> None:
    headers = {"Host": "gate.example.org", "x-api-key": ANNA}
    assert locked.ask("GET", "/v1/models", headers=headers)[0] == 200


@pytest.mark.parametrize("origin", ["https://evil.org", "null", "http://localhost:1"])
def test_pages_of_others_may_not_ask(open_to_all: ServerThread, origin: str) -> None:
    status, headers, content = open_to_all.post("/v1/chat/completions", CHAT, {"Origin": origin})
    assert (status, "access-control-allow-origin" in headers) == (403, False)
    assert "--allow-origin" in json.loads(content)["error"]["message"]
    status, headers, _ = open_to_all.ask("GET", "/v1/models", headers={"Origin": origin})
    assert (status, "access-control-allow-origin" in headers) == (200, False)  # and cannot read it


def test_the_own_page_and_allowed_ones_may(open_to_all: ServerThread) -> None:
    own = f"http://127.0.0.1:{open_to_all.port}"
    status, headers, _ = open_to_all.post("/v1/chat/completions", CHAT, {"Origin": own})
    assert (status, "access-control-allow-origin" in headers) == (200, False)
    other = "https://chat.example.org"
    status, headers, _ = open_to_all.post("/v1/chat/completions", CHAT, {"Origin": other})
    assert (status, headers["access-control-allow-origin"]) == (200, other)
    assert "origin" in headers["vary"].lower()
    asked = {
        "Origin": other,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, x-own",
    }
    status, headers, _ = open_to_all.ask("OPTIONS", "/v1/chat/completions", headers=asked)
    assert (status, headers["access-control-allow-origin"]) == (204, other)
    assert headers["access-control-allow-headers"] == "authorization, x-own"
    assert "POST" in headers["access-control-allow-methods"]


def test_a_preflight_passes_without_a_key_where_the_origin_is_allowed(tmp_path: Path) -> None:
    keys = read_keys(key_file(tmp_path, ANNA))
    asked = {"Origin": "https://any.org", "Access-Control-Request-Method": "POST"}
    with ServerThread(served(), keys=keys, origins=Origins([], ["*"])) as server:
        assert server.ask("OPTIONS", "/v1/chat/completions", headers=asked)[0] == 204
        headers = {"Origin": "https://any.org"}
        status, found, _ = server.post("/v1/chat/completions", CHAT, headers)
        assert (status, found["access-control-allow-origin"]) == (401, "https://any.org")
    with ServerThread(served(), keys=keys) as server:
        status, found, _ = server.ask("OPTIONS", "/v1/chat/completions", headers=asked)
        assert (status, "access-control-allow-origin" in found) == (405, False)


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/nothing", "/v1/chat/completions"])
def test_every_answer_tells_browsers_to_be_careful(open_to_all: ServerThread, path: str) -> None:
    _, headers, _ = open_to_all.ask("GET", path)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert headers["x-request-id"].startswith("req-")
    assert "server" not in headers


@pytest.mark.parametrize("host", ["http://a", "a:80", "a/b", "", "a b"])
def test_hosts_that_are_none(host: str) -> None:
    with pytest.raises(ValueError, match="--allow-host"):
        Origins([host])


@pytest.mark.parametrize("origin", ["chat.example.org", "https://a/b", "", "https://a b"])
def test_origins_that_are_none(origin: str) -> None:
    with pytest.raises(ValueError, match="--allow-origin"):
        Origins([], [origin])
