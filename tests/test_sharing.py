"""Machines of a session give each other files: what one has no other downloads."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from huggingface_hub import constants

from bandweave.checkpoints.byte_file import open_file
from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.partial_file import PartialFile
from bandweave.checkpoints.resolve import demo_folder
from bandweave.engine.model_search import find_model
from bandweave.hub.resolve import resolve_model
from bandweave.hub.store import hub_name
from bandweave.mesh.sealing import Keys
from bandweave.mesh.stream import Stream
from bandweave.sharing.copy import copy_folder, known_copy
from bandweave.sharing.frames import FramesError, receive_frame, send_frame
from bandweave.sharing.givers import giver
from bandweave.sharing.peer import Peer, PeerError
from bandweave.sharing.routes import Neighbour, Routes
from bandweave.sharing.server import FileServer
from tests.helpers.command import environment
from tests.helpers.hub_server import Hub, hub_of_the_test, shards_of

ASK = ("--prompt", "What is 17 + 25?", "--max-tokens", "8", "--json")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with hub_of_the_test(monkeypatch, tmp_path) as running:
        running.add("org/demo", shards_of(demo_folder(), 3))
        yield running


@contextlib.contextmanager
def serving(folder: Folder, connections: int = 2) -> Iterator[tuple[FileServer, Peer]]:
    server, peer = FileServer(folder), Peer("the other one")
    for _ in range(connections):
        ours, theirs = socket.socketpair()
        # As between machines.
        server.serve(Stream(theirs, Keys(send=b"t" * 32, receive=b"o" * 32)))
        peer.add(Stream(ours, Keys(send=b"o" * 32, receive=b"t" * 32)))
    try:
        yield server, peer
    finally:
        peer.close()
        server.close()


def test_frames_are_checked() -> None:
    ours, theirs = map(Stream, socket.socketpair())
    with ours, theirs:
        send_frame(ours, {"type": "bytes"}, b"content")
        assert receive_frame(theirs) == ({"type": "bytes"}, b"content")
        for bad, how in (
            (b"bwv1" + bytes(12), "does not speak"),
            (b"bwf1" + (2).to_bytes(4, "little") + (3).to_bytes(4, "little") + bytes(4) + b"{}abc",
             "damaged on the way"),
            (b"bwf1" + (2).to_bytes(4, "little") + bytes(8) + b"[]", "no JSON object"),
            (b"bwf1" + (255 << 24).to_bytes(4, "little") + bytes(8), "does not speak"),
        ):  # fmt: skip
            one, other = socket.socketpair()
            with one, Stream(other) as stream:
                one.sendall(bad)
                with pytest.raises(FramesError, match=how):
                    receive_frame(stream)
        ours.close()
        with pytest.raises(FramesError, match="closed the connection"):
            receive_frame(theirs)


def test_frames_are_sealed_between_machines() -> None:
    near, far = socket.socketpair()
    with Stream(near, Keys(send=b"o" * 32, receive=b"t" * 32)) as ours, far:
        send_frame(ours, {"type": "bytes"}, b"content" * 1000)
        record = bytearray(far.recv(1 << 16))
        assert b"content" not in record and b"bytes" not in record and b"bwf1" not in record
        one, other = socket.socketpair()
        with one, Stream(other, Keys(send=b"t" * 32, receive=b"o" * 32)) as theirs:
            record[len(record) // 2] ^= 1
            one.sendall(record)
            with pytest.raises(FramesError, match="was tampered with or is damaged"):
                receive_frame(theirs)


def test_a_peer_gives_ranges_of_its_files_and_no_others(tmp_path: Path) -> None:
    content = (demo_folder() / "model.safetensors").read_bytes()
    with Folder.open(demo_folder()) as folder, serving(folder) as (_, peer):
        listing = peer.listing(5.0)
        assert listing["weights"]["model.safetensors"][:2] == [len(content), True]
        assert "tokenizer.json" in listing["small"]
        got = b"".join(peer.fetch("model.safetensors", 1000, 5_000_000))
        assert got == content[1000:5_000_000]
        config = (demo_folder() / "config.json").read_bytes()
        assert b"".join(peer.fetch("config.json", 0, len(config))) == config
        for name in ("../demo/config.json", "/etc/hostname", "README.md", "", "model"):
            with pytest.raises(PeerError, match="there is no file"):
                b"".join(peer.fetch(name, 0, 10))
        assert not peer.gone
        with pytest.raises(PeerError, match="gives no files"):
            b"".join(peer.fetch("model.safetensors", len(content) - 5, len(content) + 5))


def test_a_peer_that_goes_away_is_replaced_by_the_hub(hub: Hub) -> None:
    """What has come from it is kept, and the rest is fetched."""
    path = resolve_model("org/demo") / "model-00001-of-00003.safetensors"
    content = hub.repositories["org/demo"].commits[path.parent.name][path.name]
    hub.forget()
    file = open_file(path)
    assert isinstance(file, PartialFile)

    def fickle(start: int, stop: int) -> Iterator[bytes]:
        yield content[start : start + 100_000]
        raise PeerError("gone")

    file.route = lambda units: [(units, fickle)]
    target = bytearray(1_000_000)
    file.read_into(memoryview(target), 500_000)
    assert bytes(target) == content[500_000:1_500_000]
    assert 890_000 < hub.given_bytes < 910_000
    file.close()


def test_blocks_are_fetched_by_one_node_for_all(hub: Hub, tmp_path: Path) -> None:
    """Two stores, each asks the other for what that one fetches; nothing comes twice."""
    folders, stores = [], []
    with contextlib.ExitStack() as stack:
        monkeypatch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in ("one", "two"):
            monkeypatch.setenv("BANDWEAVE_DOWNLOADS", str(tmp_path / name))
            folders.append(stack.enter_context(Folder.open(resolve_model("org/demo"))))
        made = [stack.enter_context(serving(folder, 4)) for folder in folders]
        stores = [server.store for server, _ in made]
        assert stores[0] != stores[1]
        hub.forget()
        size = sum(folders[0].files.values())
        shared = {name: [(0, size)] for name, size in folders[0].files.items()}
        for rank, folder in enumerate(folders):
            other = Neighbour(peer=made[1 - rank][1], rank=1 - rank)
            fingerprint = folder.layout_fingerprint()
            other.look(fingerprint.config, fingerprint.headers)
            routes = Routes([other], rank=rank, ranks=2, shared=shared, store=stores[rank])
            for name, file in folder.byte_files.items():
                assert isinstance(file, PartialFile)
                routes.lead(name, file)
        errors: list[BaseException] = []

        def load(folder: Folder) -> None:
            try:
                for name, size in folder.files.items():
                    folder.read_bytes(name, memoryview(bytearray(size)), 0)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=load, args=(folder,)) for folder in folders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        headers = 3 * 2 * 2048  # which both have already
        assert size - headers <= hub.given_bytes <= size
        assert all(folder.whole for folder in folders)


def test_a_copy_is_made_of_what_a_peer_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANDWEAVE_DOWNLOADS", str(tmp_path))
    with Folder.open(demo_folder()) as folder, serving(folder, 3) as (_, peer):
        fingerprint = folder.fingerprint()
        assert known_copy("/there/demo", fingerprint) is None
        path = copy_folder(peer, "/there/demo", fingerprint)
        assert path == known_copy("/there/demo", fingerprint)
        assert path.parent.name == "copies--demo"
        with giver(peer), Folder.open(path) as copy:
            assert copy.layout_fingerprint().fits(fingerprint) and not copy.whole
            (file,) = copy.byte_files.values()
            assert isinstance(file, PartialFile)
            everything = range(file.have.num_units)
            file.ensure(range(0, file.have.num_units // 2))
        with Folder.open(path) as copy:  # whose header has come
            (file,) = copy.byte_files.values()
            assert isinstance(file, PartialFile)
            with pytest.raises(ValueError, match="no machine that has it is asked now"):
                file.ensure(everything)
            with giver(peer):
                file.ensure(everything)
        assert (path / "model.safetensors").read_bytes() == (
            demo_folder() / "model.safetensors"
        ).read_bytes()
        with pytest.raises(PeerError, match="has no weights of"):
            copy_folder(peer, "/there/demo", type(fingerprint)(config="0" * 64))


def test_a_machine_that_cannot_reach_the_hub_gets_its_part_elsewhere(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the command's machine, which fetches what it lacks itself."""
    path = resolve_model("org/demo")
    with Folder.open(path) as folder, serving(folder, 3) as (_, peer), giver(peer):
        fingerprint, name = folder.fingerprint(), hub_name(path)
        monkeypatch.setenv("BANDWEAVE_DOWNLOADS", str(tmp_path / "other"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        said: list[str] = []
        with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set"):
            find_model("/there", fingerprint, [], said.append, hub=name)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        hub.repositories["org/demo"].gated = True
        with pytest.raises(ValueError, match="accept them at"):
            find_model("/there", fingerprint, [], said.append, hub=name)
        found = find_model("/there", fingerprint, [], said.append, hub=name, source=peer)
        assert found.path.parent.name == "copies--there"
        hub.repositories["org/demo"].gated = False
        hub.forget()
        with found as copy:
            for name, size in copy.files.items():
                copy.read_bytes(name, memoryview(bytearray(size)), 0)
            size = sum(copy.files.values())
        assert 0.99 * size < hub.given_bytes <= size


@contextlib.contextmanager
def worker(token: Path, downloads: Path, *more: str) -> Iterator[str]:
    command = [sys.executable, "-m", "bandweave", "worker", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*command, "--token-file", str(token), "--threads", "1", *more],
        env={**environment(""), "BANDWEAVE_DOWNLOADS": str(downloads)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        found = re.search(r"listening on (\S+)", process.stderr.readline())
        assert found is not None
        yield found[1]
    finally:
        process.terminate()
        process.communicate(timeout=20)


def run_seeing(
    real: Path, seen: Path, *words: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs a command to which the folder ``real`` lies at ``seen``, as to no other process."""
    real.mkdir(exist_ok=True)
    seen.mkdir(exist_ok=True)
    script = f'mount --bind {real} {seen} && exec "$@"'
    return subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh",
         sys.executable, "-m", "bandweave", *words],
        env={**environment(""), **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def namespaces() -> None:
    if subprocess.run(
        ["unshare", "--mount", "--map-root-user", "true"], capture_output=True, check=False
    ).returncode:
        pytest.skip("this system allows no mount namespaces")


def held(downloads: Path) -> int:
    """Bytes on the disk."""
    return sum(512 * path.stat().st_blocks for path in downloads.rglob("*.safetensors"))


def answer(finished: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def hosts(addresses: Sequence[str], token: Path) -> tuple[str, ...]:
    return ("--hosts", ",".join(addresses), "--token-file", str(token))


def test_machines_download_their_shares_alone(hub: Hub, namespaces: None, tmp_path: Path) -> None:
    """Of a model of the hub each of two machines fetches half, even where both need the rest of a
    row."""
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(16))
    token.chmod(0o600)
    size = sum(len(content) for name, content in shards_of(demo_folder(), 3).items()
               if name.endswith(".safetensors"))  # fmt: skip
    here = answer(run_seeing(tmp_path / "real", tmp_path / "seen", "run", "demo", *ASK))
    with (
        worker(token, tmp_path / "one") as one,
        worker(token, tmp_path / "two") as two,
    ):
        more = hosts([one, two], token)
        seen = tmp_path / "seen"
        own = {"BANDWEAVE_DOWNLOADS": str(seen)}
        there = run_seeing(tmp_path / "real", seen, "run", "org/demo", *ASK, *more, **own)
        assert answer(there)["logits_digest"] == here["logits_digest"]
        assert size <= hub.given_bytes <= 1.03 * size and not hub.leaked
        assert held(tmp_path / "real") < 0.02 * size
