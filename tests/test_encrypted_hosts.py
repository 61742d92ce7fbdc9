"""Workers that are talked to encrypted: meshes, files, last words, somebody in the way, tunnels."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from fractions import Fraction
from typing import Any

import pytest

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.engine.engine import Engine
from bandweave.engine.options import EngineOptions
from bandweave.executors.executor import StepError
from bandweave.generation.request import Request
from bandweave.generation.sampling import SamplingParams
from bandweave.handshake.encryption import ALWAYS, AUTO, NEVER
from bandweave.handshake.hello import Hello
from bandweave.mesh.sealing import AES
from bandweave.nodes.host_launcher import HostError, HostLauncher
from bandweave.nodes.launcher import Launcher
from bandweave.nodes.node_handle import NodeHandle
from bandweave.record import to_json
from bandweave.run_options import RunOptions
from tests.helpers.connections import SECRET
from tests.helpers.tampering import FLIP, Proxy, Tampering
from tests.helpers.workers import WorkerProcess, ask, hosts, pids_of


def elsewhere(**values: Any) -> Hello:
    """What somebody in another network says of himself."""
    return Hello(**values, network="e" * 32)


def met(launcher: Launcher, handles: list[NodeHandle], **links: Any) -> list[dict[str, Any]]:
    """Lets all nodes meet; what each says of it."""
    told = {**to_json(launcher.link_encryption()), **links}
    for handle in handles:
        addresses = [one.address for one in handles]
        handle.channel.send({"type": "mesh", "addresses": addresses, "links": told})
    return [handle.channel.receive(10) for handle in handles]


@pytest.mark.parametrize(("encryption", "sealed"), [(ALWAYS, True), (AUTO, False), (NEVER, False)])
def test_nodes_meet_as_their_controller_says(encryption: str, sealed: bool) -> None:
    with ExitStack() as stack:
        workers = [stack.enter_context(WorkerProcess()) for _ in range(3)]
        launcher = stack.enter_context(hosts(*workers, encryption=encryption))
        handles = launcher.start(3)
        assert launcher.link_encryption().cipher == AES or not handles[0].aes
        for node, message in enumerate(met(launcher, handles)):
            others = [other for other in range(3) if other != node]
            assert message["type"] == "met", message
            assert message["heard"] == {str(other): other for other in others}
            assert message["sealed"] == (others if sealed else [])
            assert message["sharing"] == others  # memory is no wire
        assert ask(handles[0], type="echo", text="still here")["text"] == "still here"


def test_a_node_that_was_given_another_key_gets_no_link() -> None:
    """As one of another cluster's command, which has the same secret."""
    with ExitStack() as stack:
        workers = [stack.enter_context(WorkerProcess()) for _ in range(2)]
        launcher = stack.enter_context(hosts(*workers, encryption=ALWAYS))
        handles = launcher.start(2)
        told = to_json(launcher.link_encryption())
        for handle, key in zip(handles, (told["key"], "0" * 64), strict=True):
            addresses = [one.address for one in handles]
            links = {**told, "key": key}
            handle.channel.send({"type": "mesh", "addresses": addresses, "links": links})
        message = handles[0].channel.receive(10)
        assert message["type"] == "failed"
        assert "it does not have the controller's key" in message["reason"]


def test_why_a_process_died_reaches_the_controller() -> None:
    with WorkerProcess() as worker, hosts(worker, encryption=ALWAYS) as launcher:
        handles = launcher.start(1)
        (pid,) = pids_of(handles)
        os.kill(pid, signal.SIGKILL)
        message = handles[0].channel.receive(10)
        assert message["type"] == "failed" and "SIGKILL" in message["reason"]


def test_a_worker_that_insists_takes_what_stays_on_its_machine_and_what_is_encrypted() -> None:
    with WorkerProcess(encrypted=True) as worker:
        for encryption in (AUTO, ALWAYS):
            with hosts(worker, encryption=encryption) as launcher:
                (handle,) = launcher.start(1)
                assert ask(handle, type="echo", text="here")["text"] == "here"


def test_a_tunnel_is_no_machine_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port of loopback behind which another machine is: encrypted unless that is forbidden, and
    forbidden means refused by a worker that insists."""
    with WorkerProcess(encrypted=True) as worker:
        heard: list[bytes] = []

        def overhear(piece: bytes, forward: bool) -> tuple[bytes, bytes, bool]:
            heard.append(piece)
            return piece, b"", False

        host, _, port = worker.address.rpartition(":")
        # This process sees another network than the worker.
        monkeypatch.setattr("bandweave.handshake.encryption.network_id", lambda: "e" * 32)
        monkeypatch.setattr("bandweave.nodes.host_launcher.Hello", elsewhere)
        with Proxy((host, int(port)), overhear) as proxy:
            address = f"127.0.0.1:{proxy.address[1]}"
            with HostLauncher([address], SECRET) as launcher:
                (handle,) = launcher.start(1)
                assert ask(handle, type="echo", text="words of mine")["text"] == "words of mine"
            assert b"words of mine" not in b"".join(heard)
            with (
                HostLauncher([address], SECRET, encryption=NEVER) as launcher,
                pytest.raises(HostError, match="encrypted connections only"),
            ):
                launcher.start(1)


@pytest.mark.timeout(240)
def test_somebody_in_the_way_of_a_link_ends_the_generation_and_is_named() -> None:
    """A whole model over two workers: a bit of what the nodes send each other in mid-answer."""
    tampering = Tampering(how=FLIP, seed=3, at=1 << 30)
    with ExitStack() as stack:
        one = stack.enter_context(WorkerProcess(serve="tests.helpers.apart:serve"))
        host, _, port = one.address.rpartition(":")
        proxy = stack.enter_context(Proxy((host, int(port)), tampering.change))
        # Others reach the first worker through the proxy; so does the command.
        there = f"127.0.0.1:{proxy.address[1]}"
        two = stack.enter_context(WorkerProcess(serve="tests.helpers.apart:serve"))
        options = EngineOptions(
            shares=(Fraction(1), Fraction(1)), hosts=(there, two.address), secret=SECRET,
            encryption=ALWAYS, threads=1, run=RunOptions(context=512),
        )  # fmt: skip
        folder = stack.enter_context(Folder.open(demo_folder()))
        engine = stack.enter_context(Engine.start(folder, options))
        params = SamplingParams(max_tokens=400)
        request = Request(tokens=(1, 2, 3), params=params)
        seen = 0

        def on_token(index: int, token: int) -> None:
            nonlocal seen
            seen += 1
            if seen == 20:
                tampering.at = tampering._seen + 3

        start = time.monotonic()
        with pytest.raises(StepError) as caught:
            engine.generate([request], on_token=on_token)
        assert tampering.done
        assert "was tampered with or is damaged" in str(caught.value), str(caught.value)
        assert "node 0" in str(caught.value) or "node 1" in str(caught.value)
        assert time.monotonic() - start < 30


def test_a_wrong_secret_ends_in_one_sentence_encrypted_or_not() -> None:
    with WorkerProcess() as worker:
        for encryption in (ALWAYS, NEVER):
            with (
                HostLauncher([worker.address], b"x" * 32, encryption=encryption) as launcher,
                pytest.raises(HostError, match="the cluster secrets differ"),
            ):
                launcher.start(1)
