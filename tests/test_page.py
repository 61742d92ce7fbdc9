"""The page's files: what they are, how they are served, and whose they are."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bandweave.serving.page import routes
from tests.helpers.scripted_engine import Script
from tests.helpers.server import ServerThread, served_by

_STATIC = Path(routes.__file__).parent / "static"
_VENDOR = _STATIC / "vendor"
_OWN = sorted(path for path in _STATIC.rglob("*") if path.is_file() and _VENDOR not in path.parents)


@pytest.fixture(scope="module")
def server() -> Iterator[ServerThread]:
    with ServerThread(served_by(lambda request, tokenizer: Script(tokens=()))) as server:
        yield server


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", "text/html; charset=utf-8"), ("/page/js/main.js", "text/javascript; charset=utf-8"),
     ("/page/vendor/preact.mjs", "text/javascript; charset=utf-8"),
     ("/page/css/base.css", "text/css; charset=utf-8"), ("/page/icon.svg", "image/svg+xml")],
)  # fmt: skip
def test_files_have_their_types_and_are_asked_for_again(
    server: ServerThread, path: str, kind: str
) -> None:
    status, headers, content = server.ask("GET", path)
    assert (status, headers["content-type"]) == (200, kind)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-cache"
    assert len(content) == int(headers["content-length"])
    again = {"If-None-Match": f'"other", W/{headers["etag"]}'}
    status, headers, content = server.ask("GET", path, headers=again)
    assert (status, content) == (304, b"")
    assert server.ask("GET", path, headers={"If-None-Match": '"other"'})[0] == 200


def test_browsers_are_told_to_run_nothing_but_these_files(server: ServerThread) -> None:
    policy = server.ask("GET", "/")[1]["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["frame-ancestors"] == "'none'"
    for name in ("script-src", "style-src", "connect-src"):
        assert rules[name] == "'self'"
    assert "unsafe" not in policy and "http" not in policy


@pytest.mark.parametrize(
    "path", ["/page/", "/page/nothing.js", "/page/../routes.py", "/page/%2e%2e/routes.py",
             "/page/vendor/licences/htm.txt", "/page/js"]
)  # fmt: skip
def test_nothing_else_is_served(server: ServerThread, path: str) -> None:
    assert server.ask("GET", path)[0] == 404


def test_no_file_of_ours_asks_another_host_or_runs_text() -> None:
    assert len(_OWN) > 15
    for path in _OWN:
        text = path.read_text(encoding="utf-8")
        text = text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://", text), path
        assert not re.search(r"innerHTML|dangerouslySet|\beval\(|new Function", text), path
        assert "<style" not in text and not re.search(r"<script>|<script(?! type)", text), path
        assert len(text.splitlines()) <= 340, path


def test_the_files_of_others_are_what_their_list_says() -> None:
    listed = json.loads((_VENDOR / "VERSIONS.json").read_text(encoding="utf-8"))
    assert set(listed) == {path.name for path in _VENDOR.iterdir() if path.is_file()} - {
        "VERSIONS.json"
    }
    for name, told in listed.items():
        content = (_VENDOR / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == told["sha256"], name
        assert re.fullmatch(r"\d+\.\d+\.\d+", told["version"])
        assert told["licence"] in ("MIT", "Apache-2.0")
        licence = (_VENDOR / "licences" / f"{told['package']}.txt").read_text(encoding="utf-8")
        assert "MIT" in licence or "Apache License" in licence or "permission" in licence.lower()
        # What a file of theirs imports lies here, too.
        for wanted in re.findall(r'(?:^|[;}\s])(?:import|export)[^;"\'`]*? from ?["\']([^"\']+)',
                                 content.decode()[:2000]):  # fmt: skip
            assert wanted.startswith("./"), (name, wanted)
