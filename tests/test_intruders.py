"""Intruders: whoever does not belong is refused and logged once, nothing grows, and the work of
others goes on with the very same tokens.

Strangers have no secret, or that of another cluster; insiders have the right one, and say what
nobody says.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from benchmarks.chaos.relay import Relay
from benchmarks.vitals import vitals

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.engine.engine import Engine
from bandweave.engine.options import EngineOptions
from bandweave.generation.request import Request
from bandweave.generation.sampling import SamplingParams
from bandweave.handshake.encryption import ALWAYS, AUTO, NEVER
from bandweave.handshake.handshake import HandshakeError, connect
from bandweave.handshake.secret import make_secret
from bandweave.mesh.address import parse_address
from bandweave.mesh.stream import Stream
from bandweave.nodes.host_launcher import HostLauncher
from bandweave.nodes.process import SERVE
from bandweave.sharing.copy import copy_folder, known_copy
from bandweave.sharing.frames import FramesError, receive_frame, send_frame
from bandweave.sharing.peer import Peer, PeerError
from bandweave.sharing.server import MOST_READ, FileServer
from tests.helpers.connections import SECRET, ends, framed, hello, wait_until
from tests.helpers.workers import WorkerProcess, free_port

_PREFIX = struct.Struct("<4sII")


class Guarded(WorkerProcess):
    """A worker whose log is a file, which anybody may read at any time."""

    def __init__(self, log: Path, **options: Any) -> None:
        with free_port() as port:
            self.port = port
        self._log = log
        with log.open("w") as file:
            super().__init__(f"127.0.0.1:{port}", stderr=file.fileno(), **options)
        assert wait_until(lambda: "listening" in self.said, 30)

    @property
    def said(self) -> str:
        return self._log.read_text()

    def count(self, words: str) -> int:
        return sum(words in line for line in self.said.splitlines())

    @property
    def busy(self) -> bool:
        return self.count(" as node ") != self.count("waiting for the next")

    def stranger(self, say: bytes = b"") -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), 10)
        with contextlib.suppress(OSError):
            sock.sendall(say)
        return sock


@pytest.fixture(scope="module")
def idle_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with Guarded(tmp_path_factory.mktemp("idle") / "log") as worker:
        served(worker)
        yield worker


@pytest.fixture(scope="module")
def real_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """One whose nodes would load models."""
    with Guarded(tmp_path_factory.mktemp("real") / "log", serve=SERVE) as worker:
        yield worker


@pytest.fixture
def guarded(idle_worker: Guarded) -> Iterator[Guarded]:
    """A worker that waits for sessions. What it has not before a test it has not after it."""
    worker = idle_worker
    assert wait_until(lambda: not worker.busy, 10), worker.said
    before = vitals(worker.process.pid)
    yield worker
    served(worker)  # whoever belongs is served as before
    assert wait_until(lambda: vitals(worker.process.pid).descriptors <= before.descriptors, 10), (
        worker.said
    )
    after = vitals(worker.process.pid)
    assert after.threads <= before.threads
    assert after.mib < before.mib + 16
    assert "Traceback" not in worker.said


def served(worker: WorkerProcess, encryption: str = AUTO) -> None:
    with HostLauncher(
        [worker.address], SECRET, connect_timeout=20, encryption=encryption
    ) as launcher:
        (handle,) = launcher.start(1)
        handle.channel.send({"type": "echo", "text": "here"})
        assert handle.channel.receive(10)["text"] == "here"


# --- strangers ---


@pytest.mark.parametrize("encryption", [ALWAYS, NEVER])
def test_a_wrong_secret_is_refused_and_logged_once(guarded: Guarded, encryption: str) -> None:
    time.sleep(1.2)  # what was counted before is told
    before = guarded.said.count("\n")
    with pytest.raises(HandshakeError):
        connect(parse_address(guarded.address), make_secret(), hello(purpose="control"), timeout=5,
                encryption=encryption)  # fmt: skip
    time.sleep(1.2)
    assert guarded.said.count("\n") == before + 1, guarded.said
    # Many of them fill no log.
    begun = time.monotonic()
    for _ in range(200):
        guarded.stranger(b"x" * 20).close()
    time.sleep(1.5)
    assert guarded.said.count("\n") - before - 1 <= time.monotonic() - begun + 2, guarded.said


@pytest.mark.parametrize("encryption", [ALWAYS, NEVER])
def test_a_replayed_handshake_opens_nothing(guarded: Guarded, encryption: str) -> None:
    """All that a legitimate controller said, word for word, and again in parts."""
    with Relay(("127.0.0.1", guarded.port), keeps=True) as relay:
        with HostLauncher([relay.address], SECRET, encryption=encryption) as launcher:
            (handle,) = launcher.start(1)
            handle.channel.send({"type": "echo", "text": "recorded"})
            assert handle.channel.receive(10)["text"] == "recorded"
        said = bytes(relay.sent[0])
    assert wait_until(lambda: not guarded.busy, 10)
    sessions, lines = guarded.count(" as node "), guarded.said.count("\n")
    for part in (said, said[: len(said) // 2], said * 2):
        with guarded.stranger(part) as sock:
            with contextlib.suppress(OSError):  # it may have ended it already
                sock.shutdown(socket.SHUT_WR)
            assert ends(sock, 10)
    time.sleep(1.2)
    assert guarded.count(" as node ") == sessions
    assert lines < guarded.said.count("\n") <= lines + 3  # it is told of, once


@pytest.mark.parametrize("encryption", [ALWAYS, NEVER])
def test_what_a_worker_said_is_no_answer_for_its_caller(encryption: str) -> None:
    """A stranger who reflects what the controller says, in the place of a worker."""
    listener = socket.create_server(("127.0.0.1", 0))

    def reflect() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                with near, contextlib.suppress(OSError):
                    while data := near.recv(4096):
                        near.sendall(data)

    thread = threading.Thread(target=reflect, daemon=True)
    thread.start()
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(HandshakeError):
        HostLauncher([address], SECRET, connect_timeout=1.0, encryption=encryption).start(1)
    listener.close()


def test_another_clusters_node_is_no_part_of_a_session(guarded: Guarded, tmp_path: Path) -> None:
    other = make_secret()
    code = (
        "from bandweave.nodes.worker import run_worker\n"
        f"run_worker('127.0.0.1:0', {other!r}, serve='tests.helpers.node_stubs:serve')\n"
    )
    with WorkerProcess(code=code) as foreign:
        addresses = [guarded.address, foreign.address]
        with pytest.raises(HandshakeError, match=r"node 1 .*secret"):
            HostLauncher(addresses, SECRET, connect_timeout=5).start(2)
    served(guarded)
    with HostLauncher([guarded.address], SECRET) as launcher:
        launcher.start(1)
        # One of our own secret, but of another session; and one that comes as a controller.
        for own in (hello(session="another", node=1), hello(purpose="files", session="another")):
            with pytest.raises(HandshakeError, match="another session"):
                connect(parse_address(guarded.address), SECRET, own, timeout=5)
        with pytest.raises(HandshakeError, match="busy"):
            connect(parse_address(guarded.address), SECRET,
                    hello(purpose="control", node=0, session="another"), timeout=5)  # fmt: skip


@pytest.mark.parametrize("length", [4097, 1 << 20, (1 << 32) - 1])
def test_a_stranger_cannot_announce_much(guarded: Guarded, length: int) -> None:
    for magic in (b"bwv1", b"bwf1", b"\0\0\0\0"):
        with guarded.stranger(_PREFIX.pack(magic, length, 0) + bytes(4096)) as sock:
            assert ends(sock, 7)


def test_a_thousand_idle_connections_cost_next_to_nothing(guarded: Guarded) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    before = vitals(guarded.process.pid)
    lines = guarded.said.count("\n")
    idle: list[socket.socket] = []
    begun = time.monotonic()
    try:
        for _ in range(1000):
            idle.append(guarded.stranger())
        served(guarded)
        during = vitals(guarded.process.pid)
        assert during.descriptors <= before.descriptors + 260
        assert during.threads <= before.threads + 3  # those of a session
        assert during.mib < before.mib + 16
        assert guarded.said.count("\n") - lines <= 2 * (time.monotonic() - begun) + 8
    finally:
        for sock in idle:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- insiders ---


@pytest.mark.parametrize("encryption", [ALWAYS, NEVER])
@pytest.mark.parametrize(
    "said",
    [
        _PREFIX.pack(b"bwv1", (1 << 32) - 1, 0),
        _PREFIX.pack(b"bwv1", 1 << 30, 0) + bytes(1 << 20),
        _PREFIX.pack(b"bwv1", 100, 7),
        bytes(range(256)) * 64,
        framed(b"[" * 100_000),
        framed(b'{"type":' + b"9" * 5000 + b"}"),
        framed(b"{}") * 1000,
    ],
    ids=["endless", "huge", "other protocol", "noise", "nested", "number", "many"],
)
def test_frames_that_make_no_sense_end_their_own_session(
    real_worker: Guarded, said: bytes, encryption: str
) -> None:
    """After the handshake, by somebody who has the secret."""
    own = hello(purpose="control", node=0, session="insider")
    made = connect(parse_address(real_worker.address), SECRET, own, timeout=20,
                   encryption=encryption)  # fmt: skip
    with made.socket as sock:
        with contextlib.suppress(OSError):
            sock.sendall(said + bytes(64))  # where it is encrypted none of it can be opened
        assert ends(sock, 15)
    assert wait_until(lambda: not real_worker.busy, 10), real_worker.said
    assert vitals(real_worker.process.pid).mib < 60
    assert "Traceback" not in real_worker.said, real_worker.said


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"type": 5},
        {"type": "mesh"},
        {"type": "mesh", "addresses": "all"},
        {"type": "echo"},
        {"type": "x" * 100_000},
        {"type": "hold", "assignment": [[[]]] * 1000},
    ],
    ids=lambda one: str(one.get("type", "none"))[:10],
)
def test_messages_that_make_no_sense_end_their_own_session(
    real_worker: Guarded, message: dict[str, Any]
) -> None:
    """As the nodes of a real session read them; the next session finds the worker free."""
    with HostLauncher([real_worker.address], SECRET, connect_timeout=20) as launcher:
        (handle,) = launcher.start(1)
        handle.channel.send(message)
        assert wait_until(lambda: handle.channel.poll(), 15)
        with contextlib.suppress(OSError):
            while (answer := handle.channel.receive(15))["type"] != "failed":
                pass
            assert answer["reason"] and "Traceback" not in answer["reason"]
    assert real_worker.process.poll() is None
    assert "Traceback" not in real_worker.said, real_worker.said


# --- others' work ---


@contextlib.contextmanager
def work(workers: list[Guarded]) -> Iterator[Callable[[], int]]:
    """A session that answers one question again and again, with the same logits each time. Gives
    how often it has so far."""
    options = EngineOptions(
        shares=(Fraction(1),) * len(workers),
        hosts=tuple(one.address for one in workers),
        secret=SECRET,
    )
    params = SamplingParams(temperature=0.9, seed=5, max_tokens=60)
    request = Request(tokens=(5, 6, 7), params=params)
    answers: list[tuple[object, ...]] = []
    failures: list[BaseException] = []
    over = threading.Event()
    with Folder.open(demo_folder()) as folder, Engine.start(folder, options) as engine:

        def run() -> None:
            try:
                while not over.is_set():
                    (result,) = engine.generate([request], digest=True)
                    answers.append((result.tokens, result.logits_digest))
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            assert wait_until(lambda: len(answers) > 2 or bool(failures), 30)
            yield lambda: len(answers)
        finally:
            over.set()
            thread.join()
    assert not failures
    assert len(set(answers)) == 1


def test_strangers_and_insiders_leave_others_work_alone(tmp_path: Path) -> None:
    """All of them at once, at both workers of a session that answers."""
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(Guarded(tmp_path / f"log {n}", serve=SERVE, threads=1))
            for n in range(2)
        ]
        done = stack.enter_context(work(workers))
        before = [vitals(worker.process.pid) for worker in workers]
        begun, count = time.monotonic(), done()
        idle: list[socket.socket] = []
        stack.callback(lambda: [sock.close() for sock in idle])
        while time.monotonic() - begun < 3 or (
            done() - count < 3 and time.monotonic() - begun < 20
        ):
            for worker in workers:
                idle += [worker.stranger(said) for said in (b"", b"x" * 40, framed(b'{"a":1}'))]
                for secret, session in ((make_secret(), "s"), (SECRET, "another")):
                    with contextlib.suppress(HandshakeError):
                        connect(parse_address(worker.address), secret, hello(session=session),
                                timeout=0.3)  # fmt: skip
        assert done() - count >= 3  # answers come meanwhile
        for worker, was in zip(workers, before, strict=True):
            now = vitals(worker.process.pid)
            assert now.mib < was.mib + 16 and now.threads <= was.threads + 1
            assert now.descriptors <= was.descriptors + 260
            assert worker.said.count("\n") <= 3 * (time.monotonic() - begun) + 20
            assert "Traceback" not in worker.said


# --- files between machines ---


@contextlib.contextmanager
def file_server() -> Iterator[Callable[[], Stream]]:
    with Folder.open(demo_folder()) as folder:
        server = FileServer(folder)

        def connected() -> Stream:
            ours, theirs = map(Stream, socket.socketpair())
            server.serve(theirs)
            ours.settimeout(10)
            return ours

        try:
            yield connected
        finally:
            server.close()


_OUTSIDE = (
    "../demo/config.json", "/etc/hostname", "..", ".", "", "/", "config.json/../config.json",
    "./config.json", "model.safetensors/", "..\\config.json", "C:\\config.json",
    "file:///etc/hostname", "config.json\0", "\0", "~/.ssh/id_rsa", "%2e%2e/config.json",
    "..%2fconfig.json", "x" * 100_000, "bandweave.hub.json", "CONFIG.JSON", "\u2024\u2024/x",
    "/proc/self/environ", "/dev/zero", "model.safetensors.have",
)  # fmt: skip


def test_no_name_leads_out_of_the_model(tmp_path: Path) -> None:
    with file_server() as connected, connected() as stream:
        for name in _OUTSIDE:
            send_frame(stream, {"type": "read", "file": name, "start": 0, "stop": 10})
            answer, body = receive_frame(stream)
            assert answer["type"] == "failed" and not body, name
            assert "there is no file" in answer["reason"] and len(answer["reason"]) < 500
        send_frame(stream, {"type": "read", "file": "config.json", "start": 0, "stop": 10})
        assert receive_frame(stream)[0]["type"] == "bytes"  # the connection is as good as before


@pytest.mark.parametrize(
    "request_",
    [
        {"type": "read", "file": "config.json", "start": -1, "stop": 5},
        {"type": "read", "file": "config.json", "start": 9, "stop": 5},
        {"type": "read", "file": "config.json", "start": 0.0, "stop": 5},
        {"type": "read", "file": "config.json", "start": True, "stop": 5},
        {"type": "read", "file": "config.json", "start": 0, "stop": MOST_READ + 1},
        {"type": "read", "file": "model.safetensors", "start": 1 << 62, "stop": (1 << 62) + 1},
        {"type": "read", "file": ["config.json"], "start": 0, "stop": 5},
        {"type": "read", "file": {"a": 1}, "start": 0, "stop": 5},
        {"type": "read"},
        {"type": "write", "file": "config.json"},
        {"type": ["list"]},
        {},
    ],
    ids=str,
)
def test_a_range_that_is_none_ends_its_connection_alone(request_: dict[str, Any]) -> None:
    with file_server() as connected, connected() as stream, connected() as other:
        send_frame(stream, request_)
        with pytest.raises(FramesError, match="closed the connection"):
            receive_frame(stream)
        send_frame(other, {"type": "list"})
        assert receive_frame(other)[0]["type"] == "files"


@contextlib.contextmanager
def lying_peer(listing: dict[str, Any]) -> Iterator[Peer]:
    """Another machine that offers files of its own making."""
    ours, theirs = map(Stream, socket.socketpair())

    def answer() -> None:
        with theirs, contextlib.suppress(OSError):
            while True:
                request, _ = receive_frame(theirs)
                if request["type"] == "list":
                    send_frame(theirs, listing)
                else:
                    send_frame(theirs, {"type": "bytes"}, bytes(request["stop"]))

    threading.Thread(target=answer, daemon=True).start()
    peer = Peer("the other machine")
    peer.add(ours)
    try:
        yield peer
    finally:
        peer.close()


@pytest.mark.parametrize(
    "change",
    [
        {"headers": "../../../outside"},
        {"headers": "/" + "a" * 63},
        {"headers": "A" * 64},
        {"small": {"../outside.json": 5}},
        {"small": {"/outside.json": 5}},
        {"small": {"..": 5}},
        {"small": {"": 5}},
        {"small": {".bashrc": 5}},
        {"small": {"authorized_keys": 5}},
        {"small": {"bandweave.hub.json": 5}},
        {"small": {"model.safetensors.have": 5}},
        {"small": {"a\\b.json": 5}},
        {"small": {"a\0.json": 5}},
        {"small": {"config.json": -1}},
        {"small": {"config.json": 1 << 40}},
        {"weights": {"../outside.safetensors": [5, True]}},
        {"weights": {"config.json": [5, True]}},
        {"weights": {"x.partial": [5, True]}},
        {"weights": {"model.safetensors": [1 << 60, True]}},
        {"weights": {"model.safetensors": ["5", True]}},
    ],
    ids=lambda one: json.dumps(one)[:40],
)
def test_a_machine_writes_nothing_where_another_one_says(
    change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor under any name but one of a model's files."""
    home = tmp_path / "home"
    monkeypatch.setenv("BANDWEAVE_DOWNLOADS", str(home / "downloads"))
    with Folder.open(demo_folder()) as folder:
        fingerprint = folder.layout_fingerprint()
    listing = {"type": "files", "store": "s", "weights": {}, "small": {}, "start": "",
               "config": fingerprint.config, "headers": fingerprint.headers, **change}  # fmt: skip
    with lying_peer(listing) as peer, pytest.raises(PeerError):
        copy_folder(peer, "/there/demo", fingerprint)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in written if path.name not in ("CACHEDIR.TAG",)] == []
    folders = {path for path in tmp_path.rglob("*") if path.is_dir()}
    assert all(path == home or (home / "downloads") in (path, *path.parents) for path in folders)


def test_a_fingerprint_of_another_machine_is_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BANDWEAVE_DOWNLOADS", str(tmp_path / "downloads"))
    with Folder.open(demo_folder()) as folder:
        fingerprint = folder.layout_fingerprint()
    for headers in ("../../x", "/etc", os.sep * 64):
        odd = type(fingerprint)(config=fingerprint.config, headers=headers)
        assert known_copy("/there/demo", odd) is None
