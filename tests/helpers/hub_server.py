"""A hub on this machine: what huggingface.co answers, as far as bandweave asks, and misfortunes.

Two servers: the hub's own, which knows names and signs addresses, and the storage, where they lead.
It counts the bytes that it gives, and notes a token that comes where none belongs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pytest
from huggingface_hub import constants

from bandweave.checkpoints.safetensors import SafetensorsFile, encode_header
from bandweave.hub import patience
from bandweave.hub.service import service

TOKEN = "hf_" + "t" * 34
_LARGE = (".safetensors", ".gguf", "tokenizer.json")


@dataclass
class Repository:
    """One model: ``commits`` by their names, each with the bytes of its files."""

    commits: dict[str, dict[str, bytes]]
    branches: dict[str, str]
    gated: bool = False
    private: bool = False
    disabled: bool = False


@dataclass
class Misfortunes:
    """What goes wrong, each as often as its number says; -1 for always."""

    expire_after: int = -1  # requests that one signed address serves
    busy: int = 0  # answers 429 of the hub
    wait: str = "0"  # that they ask for
    broken: int = 0  # answers 503 of the storage
    cut: int = 0  # connections that end in the middle of a range
    cut_after: int = 1000  # bytes
    ignore_ranges: bool = False
    corrupt: int = 0  # ranges with a wrong byte
    refuse: int = 0  # answers 416
    pause: float = 0.0  # seconds before each piece of 64 KiB

    def take(self, name: str) -> bool:
        """Whether one more of it is due."""
        left = getattr(self, name)
        if left > 0:
            setattr(self, name, left - 1)
        return left != 0


@dataclass
class Hub:
    """A running hub; change what it holds and what goes wrong at any time."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    bad: Misfortunes = field(default_factory=Misfortunes)
    endpoint: str = ""
    storage: str = ""
    given: dict[str, int] = field(default_factory=dict)  # bytes of the storage, by path
    ranges: list[tuple[str, int, int]] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)  # method and path, of the hub
    leaked: list[str] = field(default_factory=list)  # storage requests with a token
    signed: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, repo: str, files: dict[str, bytes], branch: str = "main") -> str:
        """A commit with these files, on a branch; its name."""
        text = json.dumps([repo, {name: hashlib.sha256(one).hexdigest() for name, one in
                                  sorted(files.items())}])  # fmt: skip
        commit = hashlib.sha1(text.encode()).hexdigest()
        known = self.repositories.setdefault(repo, Repository(commits={}, branches={}))
        known.commits[commit] = files
        known.branches[branch] = commit
        return commit

    @property
    def variables(self) -> dict[str, str]:
        """What a command needs to find it."""
        return {"HF_ENDPOINT": self.endpoint, "HF_HUB_OFFLINE": "0"}

    @property
    def given_bytes(self) -> int:
        """Of weights, so far."""
        return sum(self.given.values())

    def forget(self) -> None:
        """Counts from zero."""
        with self.lock:
            self.given.clear()
            self.ranges.clear()
            self.asked.clear()


@contextlib.contextmanager
def run_hub(host: str = "127.0.0.1") -> Iterator[Hub]:
    """A hub and its storage at free ports."""
    hub = Hub()
    servers = []
    for handler in (_HubHandler, _StorageHandler):
        made: Any = type("Handler", (handler,), {"hub": hub})
        server = ThreadingHTTPServer((host, 0), made)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
    hub.endpoint, hub.storage = (f"http://{host}:{one.server_address[1]}" for one in servers)
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


@contextlib.contextmanager
def hub_of_the_test(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Hub]:
    """A hub that this process, and the commands that it starts, find; they keep what they get of it
    in ``folder``."""
    with run_hub() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hf" / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "hf" / "token"))
        monkeypatch.setattr(patience, "_FIRST_PAUSE", 0.01)
        monkeypatch.setattr(patience, "TRIES", 6)
        for name, value in running.variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HF_HOME", str(folder / "hf"))
        monkeypatch.setenv("BANDWEAVE_DOWNLOADS", str(folder / "downloads"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        service.cache_clear()
        yield running
    service.cache_clear()


def weights(size: int, seed: int = 0) -> bytes:
    """A safetensors file of one tensor of so many random bytes."""
    return encode_header([("w", "U8", [size])]) + random.Random(seed).randbytes(size)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        raise NotImplementedError

    def say(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _HubHandler(_Handler):
    def answer(self) -> None:
        path = urlsplit(self.path).path
        with self.hub.lock:
            self.hub.asked.append((self.command, path))
            busy = self.hub.bad.take("busy")
        if busy:
            wait = self.hub.bad.wait
            if wait.startswith("t"):
                self.say(429, RateLimit=f'"api";r=0;t={wait[1:]}')
            else:
                self.say(429, Retry_After=wait)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/([^/]+)", path):
            self.revision(match[1], unquote(match[2]))
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.file(match[1], unquote(match[2]), unquote(match[3]))
        elif match := re.fullmatch(r"/api/resolve-cache/models/([^/]+/[^/]+)/(\w+)/(.+)", path):
            files = self.hub.repositories[match[1]].commits[match[2]]
            self.say(200, files[unquote(match[3])], ETag='"small"')
        else:
            self.say(404)

    def known(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit and its files; None where the answer was an error."""
        with_token = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        found = self.hub.repositories.get(repo)
        if found is None or (found.private and not with_token):
            self.say(404 if with_token else 401, X_Error_Code="RepoNotFound")
            return None
        if found.disabled:
            self.say(403, X_Error_Message="Access to this resource is disabled.")
            return None
        commit = found.branches.get(revision, revision)
        if commit not in found.commits:
            self.say(404, X_Error_Code="RevisionNotFound")
            return None
        return commit, found.commits[commit]

    def revision(self, repo: str, revision: str) -> None:
        if (known := self.known(repo, revision)) is None:
            return
        commit, files = known
        siblings = []
        for name, content in files.items():
            one: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": _git(content)}
            if name.endswith(_LARGE):
                digest = hashlib.sha256(content).hexdigest()
                one["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
            siblings.append(one)
        value = {"id": repo, "sha": commit, "siblings": siblings}
        self.say(200, json.dumps(value).encode(), Content_Type="application/json")

    def file(self, repo: str, revision: str, name: str) -> None:
        if (known := self.known(repo, revision)) is None:
            return
        commit, files = known
        gated = self.hub.repositories[repo].gated
        if gated:
            status = 403 if "Authorization" in self.headers else 401
            self.say(status, X_Error_Code="GatedRepo")
        elif name not in files:
            self.say(404, X_Error_Code="EntryNotFound")
        elif not name.endswith(_LARGE):
            self.say(307, Location=f"/api/resolve-cache/models/{repo}/{commit}/{name}")
        else:
            content = files[name]
            with self.hub.lock:
                signature = str(len(self.hub.signed))
                self.hub.signed[signature] = 0
            self.say(
                302,
                Location=f"{self.hub.storage}/{repo}/{commit}/{name}?signature={signature}",
                X_Repo_Commit=commit,
                X_Linked_Size=str(len(content)),
                X_Linked_ETag=f'"{hashlib.sha256(content).hexdigest()}"',
                X_Xet_Hash="0" * 64,
            )


class _StorageHandler(_Handler):
    def answer(self) -> None:
        hub, bad = self.hub, self.hub.bad
        parts = urlsplit(self.path)
        org, name, commit, path = unquote(parts.path).lstrip("/").split("/", 3)
        content = hub.repositories[f"{org}/{name}"].commits[commit][path]
        signature = parse_qs(parts.query).get("signature", [""])[0]
        with hub.lock:
            if "Authorization" in self.headers:
                hub.leaked.append(self.path)
            used = hub.signed[signature] = hub.signed.get(signature, 0) + 1
            expired = 0 <= bad.expire_after < used
            broken, refused = bad.take("broken"), bad.take("refuse")
            cut, corrupt = bad.take("cut"), bad.take("corrupt")
        if expired:
            self.say(403, b"expired")
            return
        if broken:
            self.say(503)
            return
        if refused:
            self.say(416)
            return
        start, stop, status = 0, len(content), 200
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if match and not bad.ignore_ranges:
            start, stop, status = int(match[1]), min(int(match[2]) + 1, len(content)), 206
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.send_header("ETag", f'"{"c" * 64}"')  # the storage has names of its own
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        with hub.lock:
            hub.ranges.append((path, start, stop))
        body = content[start:stop]
        if corrupt:
            body = bytes([body[0] ^ 1]) + body[1:]
        self.give(path, body[: bad.cut_after] if cut else body)
        if cut:
            self.close_connection = True
            self.connection.close()

    def give(self, path: str, body: bytes) -> None:
        with contextlib.suppress(OSError):
            for first in range(0, len(body), 1 << 16):
                if self.hub.bad.pause:
                    time.sleep(self.hub.bad.pause)
                some = body[first : first + (1 << 16)]
                self.wfile.write(some)
                with self.hub.lock:
                    if not path.endswith(".json"):
                        self.hub.given[path] = self.hub.given.get(path, 0) + len(some)


def _git(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def shards_of(folder: Path, count: int) -> dict[str, bytes]:
    """The files of a model folder, its weights cut into so many files with an index."""
    files = {one.name: one.read_bytes() for one in folder.iterdir() if one.suffix == ".json"}
    whole = SafetensorsFile.open(folder / "model.safetensors")
    try:
        entries = list(whole.tensors.values())
        bounds = np.linspace(0, len(entries), count + 1).astype(int)
        weight_map = {}
        for index in range(count):
            some = entries[bounds[index] : bounds[index + 1]]
            name = f"model-{index + 1:05}-of-{count:05}.safetensors"
            data = bytearray(sum(entry.stop - entry.start for entry in some))
            at = 0
            for entry in some:
                size = entry.stop - entry.start
                whole.read_into(memoryview(data)[at : at + size], entry.start)
                at += size
                weight_map[entry.name] = name
            header = encode_header([(entry.name, entry.dtype, entry.shape) for entry in some])
            files[name] = header + bytes(data)
    finally:
        whole.close()
    index_text = json.dumps({"metadata": {}, "weight_map": weight_map})
    files["model.safetensors.index.json"] = index_text.encode()
    return files
