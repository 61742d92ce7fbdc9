"""Commands and workers that are started without some of the standard streams."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bandweave.handshake.handshake import HandshakeError
from bandweave.handshake.secret import make_secret, read_secret
from bandweave.nodes.host_launcher import HostLauncher
from tests.helpers.workers import child_environment, free_port

BANDWEAVE = (sys.executable, "-m", "bandweave")
ALL = ("<&-", ">&-", "2>&-")
SOME = [ALL[:1], ALL[1:2], ALL[2:], ALL[:2], ALL[1:], (ALL[0], ALL[2]), ALL]


def without(streams: tuple[str, ...], *command: str) -> tuple[str, ...]:
    return ("sh", "-c", f'exec "$@" {" ".join(streams)}', "sh", *command)


def run(streams: tuple[str, ...], *arguments: str) -> subprocess.CompletedProcess[str]:
    """What a command writes where it can: closed streams are not read."""
    return subprocess.run(
        without(streams, *BANDWEAVE, *arguments),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**child_environment(), "BANDWEAVE_CACHE": "off"},
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("streams", [*SOME[:3], ALL])
def test_commands_work_without_standard_streams(streams: tuple[str, ...]) -> None:
    done = run(streams, "run", "demo", "--prompt", "What is 17 + 25?", "--nodes", "2")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == "" if ">&-" in streams else "42" in done.stdout


@pytest.mark.parametrize("streams", SOME)
def test_mistakes_are_mistakes_without_standard_streams(streams: tuple[str, ...]) -> None:
    done = run(streams, "run", "no-such-model", "--prompt", "a")
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert lines == [] if "2>&-" in streams else lines[0].startswith("bandweave: ")


def test_a_prompt_that_was_to_come_from_a_closed_input_is_missed_in_words() -> None:
    done = run(ALL[:1], "run", "demo")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr


@contextlib.contextmanager
def worker(streams: tuple[str, ...], folder: Path) -> Iterator[tuple[str, bytes]]:
    """A worker's address and its secret."""
    token = folder / "token"
    token.write_bytes(make_secret())
    token.chmod(0o600)
    with free_port() as port:
        address = f"127.0.0.1:{port}"
        arguments = ("worker", "--listen", address, "--token-file", str(token))
        process = subprocess.Popen(
            without(streams, *BANDWEAVE, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**child_environment(), "BANDWEAVE_CACHE": "off"},
        )
        try:
            yield address, read_secret(token)
        finally:
            process.terminate()
            assert process.wait(20) == 143


@pytest.mark.parametrize("streams", [ALL[2:], ALL[:2], ALL])
def test_a_worker_without_standard_streams_serves(streams: tuple[str, ...], tmp_path: Path) -> None:
    with worker(streams, tmp_path) as (address, secret):
        for _ in range(2):
            with HostLauncher([address], secret, connect_timeout=30) as launcher:
                (handle,) = launcher.start(1)
                handle.channel.send({"type": "describe"})
                assert handle.channel.receive(20)["type"] == "description"
            with pytest.raises(HandshakeError, match="secrets differ"):
                HostLauncher([address], make_secret(), connect_timeout=5).start(1)


DESCRIPTORS = """
import os, socket
from bandweave.cli.standard_streams import open_standard_streams
open_standard_streams()
with socket.socket() as sock:
    assert sock.fileno() > 2
    print("written to nothing, or to what was open")
    os.write(2, b"so is this")
    open_standard_streams()
    import sys
    assert sys.stdin.read() == ""
    os._exit(9)
"""


@pytest.mark.parametrize("streams", SOME)
def test_no_socket_gets_the_number_of_a_standard_stream(streams: tuple[str, ...]) -> None:
    done = subprocess.run(
        without(streams, sys.executable, "-c", DESCRIPTORS),
        capture_output=True,
        stdin=subprocess.DEVNULL,
        env=child_environment(),
        check=False,
    )
    assert done.returncode == 9, done.stderr
    assert done.stderr == (b"" if "2>&-" in streams else b"so is this")


def test_streams_that_are_open_stay_as_they_are() -> None:
    before = [os.fstat(number).st_ino for number in range(3)]
    streams = sys.stdin, sys.stdout, sys.stderr
    from bandweave.cli.standard_streams import open_standard_streams

    open_standard_streams()
    assert [os.fstat(number).st_ino for number in range(3)] == before
    assert (sys.stdin, sys.stdout, sys.stderr) == streams
