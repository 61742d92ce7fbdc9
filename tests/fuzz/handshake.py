"""Attacks on a worker's port: connections that say almost the right thing.

``python -m tests.fuzz.handshake --inputs N --seed S`` makes N of them against one worker, with
legitimate sessions in between, and prints what became of them. A worker that ends, hangs, refuses
somebody who knows the secret, or grows, fails the run.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bandweave.handshake.handshake import HandshakeError
from bandweave.handshake.handshake_messages import (
    introduction,
    prologue,
    read_sealed,
    sealed_message,
    traffic_keys,
)
from bandweave.handshake.hello import PROTOCOL_VERSION
from bandweave.handshake.noise import Noise
from bandweave.handshake.secret import make_secret, shared_key
from bandweave.handshake.transcript import Transcript
from bandweave.mesh.address import Address, parse_address
from bandweave.mesh.channel import Channel
from bandweave.nodes.host_launcher import HostLauncher
from tests.fuzz.command import command
from tests.fuzz.mutations import Mutator, text_of
from tests.helpers.connections import SECRET, framed, hello
from tests.helpers.workers import WorkerProcess, ask, threads_of

_HELD = 40  # connections that stay open, the oldest closed for each new one
_SESSION_EVERY = 1000
_ANSWER_SECONDS = 5.0
_GROWTH_BYTES = 16 << 20
_OTHER_PROTOCOLS = (b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01", b"SSH-2.0-x\r\n")


class Attack:
    """One run against whoever listens at an address. ``kinds``: of its inputs."""

    kinds: Sequence[Callable[[Any, socket.socket], str]] = ()

    def __init__(self, address: Address, seed: int) -> None:
        self.address = address
        self.mutator = Mutator(seed)
        self.random = self.mutator.random
        self.outcomes: Counter[str] = Counter()
        self.held: list[socket.socket] = []
        self.recorded: list[bytes] = []

    def once(self) -> None:
        kind = self.random.choice(self.kinds)
        try:
            with contextlib.ExitStack() as stack:
                sock = socket.create_connection(self.address, _ANSWER_SECONDS)
                stack.callback(sock.close)
                outcome = kind(self, sock)
                if self.random.random() < 0.3:
                    stack.pop_all()
                    self.held.append(sock)
                elif self.random.random() < 0.2:  # a reset in the place of an end
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except TimeoutError:
            outcome = "no answer in 5 s"
        except (ConnectionError, HandshakeError):
            outcome = "ended"
        self.outcomes[f"{kind.__name__.strip('_')}: {outcome}"] += 1
        while len(self.held) > _HELD:
            self.held.pop(0).close()

    def many(self, count: int) -> None:
        for _ in range(count):
            self.once()

    def close(self) -> None:
        for sock in self.held:
            sock.close()
        self.held.clear()

    # --- what is said ---

    def hello(self) -> dict[str, Any]:
        return {
            "type": "hello",
            "protocol": PROTOCOL_VERSION,
            "nonce": self.random.randbytes(32).hex(),
        }

    def raw(self, sock: socket.socket) -> str:
        sock.sendall(self.random.randbytes(self.random.randrange(200)))
        return _finish(sock)

    def other_protocol(self, sock: socket.socket) -> str:
        sock.sendall(
            self.random.choice((b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01", b"SSH-2.0-x\r\n"))
        )
        return _finish(sock)

    def lengths(self, sock: socket.socket) -> str:
        numbers = (self.random.getrandbits(self.random.randrange(33)) for _ in range(2))
        sock.sendall(struct.pack("<4sII", b"bwv1", *numbers) + b"{" * self.random.randrange(100))
        return _finish(sock)

    def nothing(self, sock: socket.socket) -> str:
        return "silent"

    def altered_hello(self, sock: socket.socket) -> str:
        message = self.mutator.json(self.hello(), self.random.randrange(1, 4))
        sock.sendall(framed(text_of(message)))
        return _finish(sock)

    def altered_bytes(self, sock: socket.socket) -> str:
        data = framed(text_of(self.hello()))
        sock.sendall(self.mutator.bytes(data, self.random.randrange(1, 6)))
        return _finish(sock)

    def in_pieces(self, sock: socket.socket) -> str:
        data = framed(text_of(self.hello())) * self.random.randrange(1, 3)
        while data:
            size = self.random.randrange(1, 60)
            sock.sendall(data[:size])
            data = data[size:]
        return _finish(sock)

    def guessed_proof(self, sock: socket.socket) -> str:
        channel = Channel(sock, "the worker")
        channel.send(self.hello())
        channel.receive(_ANSWER_SECONDS)
        channel.send(self.mutator.json({"type": "proof", "proof": "0" * 64}))
        return channel.receive(_ANSWER_SECONDS)["type"]

    def replay(self, sock: socket.socket) -> str:
        for data in self.recorded:
            sock.sendall(data)
        return _finish(sock)

    def other_secret(self, sock: socket.socket) -> str:
        return self._speak(sock, make_secret(), {})

    def insider(self, sock: socket.socket) -> str:
        """Knows the secret, and says odd things of itself."""
        purpose = self.random.choice(("mesh", "control"))
        own = introduction(hello(purpose=purpose, node=-1, session="another"))
        said = self.mutator.json(own, self.random.randrange(1, 3))
        if not isinstance(said, dict):
            said = {"type": said}
        if purpose == "control":  # what could be right would begin a session
            said["node"] = self.random.choice((-1, -2, 1 << 40, None, said.get("package")))
        return self._speak(sock, SECRET, said)

    def _speak(self, sock: socket.socket, secret: bytes, own: dict[str, Any]) -> str:
        channel, transcript = Channel(sock, "the worker"), Transcript(secret)
        first = self.hello()
        channel.send(first)
        transcript.add(first)
        transcript.add(channel.receive(_ANSWER_SECONDS))
        proof = transcript.prove("connector", {"type": "proof"})
        channel.send(proof)
        answer = channel.receive(_ANSWER_SECONDS)
        self.recorded = [framed(text_of(first)), framed(text_of(proof))]
        if not transcript.verify("acceptor", answer):
            return answer["type"]
        proved = transcript.prove("connector", own)
        channel.send(self.mutator.json(proved) if self.random.random() < 0.2 else proved)
        return channel.receive(_ANSWER_SECONDS)["type"]

    def sealed_hello(self, sock: socket.socket) -> str:
        """Of somebody who knows the secret, altered; never confirmed as it must be."""
        message = sealed_message("hello", PROTOCOL_VERSION, self._noise(SECRET), hello())
        text = text_of(self.mutator.json(message, self.random.randrange(0, 3)))
        sock.sendall(framed(text) + self.random.randbytes(self.random.randrange(99)))
        return _finish(sock)

    def sealed_other_secret(self, sock: socket.socket) -> str:
        message = sealed_message("hello", PROTOCOL_VERSION, self._noise(make_secret()), hello())
        channel = Channel(sock, "the worker")
        channel.send(message)
        return channel.receive(_ANSWER_SECONDS)["type"]

    def sealed_insider(self, sock: socket.socket) -> str:
        """Knows the secret, and is refused for what it says of itself, or takes no session."""
        channel, noise = Channel(sock, "the worker"), self._noise(SECRET)
        own = hello(purpose="mesh", node=self.random.choice((-1, 5)), session="another")
        channel.send(sealed_message("hello", PROTOCOL_VERSION, noise, own))
        read_sealed(channel.receive(_ANSWER_SECONDS), noise, "the worker")
        channel.seal(traffic_keys(noise)[0])
        said = self.mutator.json({"type": "confirm"}, self.random.randrange(0, 2))
        channel.send(said if isinstance(said, dict) else {"type": said})
        return channel.receive(_ANSWER_SECONDS)["type"]

    def _noise(self, secret: bytes) -> Noise:
        return Noise(shared_key(secret), prologue(PROTOCOL_VERSION), initiator=True)


Attack.kinds = (
    Attack.raw,
    Attack.other_protocol,
    Attack.lengths,
    Attack.nothing,
    Attack.altered_hello,
    Attack.altered_bytes,
    Attack.in_pieces,
    Attack.guessed_proof,
    Attack.replay,
    Attack.other_secret,
    Attack.insider,
    Attack.sealed_hello,
    Attack.sealed_other_secret,
    Attack.sealed_insider,
)


def _finish(sock: socket.socket) -> str:
    """What the worker says to what cannot be right; nothing where it waits for the rest."""
    sock.settimeout(0.002)
    try:
        data = sock.recv(4096)
    except TimeoutError:
        return "it waits for more"
    if not data:
        return "ended"
    with contextlib.suppress(ValueError):
        return json.loads(data[12:])["type"]
    return "an answer"


def size_of(pid: int) -> dict[str, int]:
    """Descriptors, threads and bytes of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return {
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": threads_of(pid),
        "bytes": pages * os.sysconf("SC_PAGE_SIZE"),
    }


def session(worker: WorkerProcess, meanwhile: Callable[[], None] = lambda: None) -> float:
    """Seconds that a legitimate session takes from its first connection to its end."""
    started = time.monotonic()
    with HostLauncher([worker.address], SECRET, connect_timeout=30) as launcher:
        (handle,) = launcher.start(1)
        assert ask(handle, type="echo", text="here")["text"] == "here"
        paused = time.monotonic()
        meanwhile()
        started += time.monotonic() - paused
        assert ask(handle, type="echo", text="still here")["text"] == "still here"
    return time.monotonic() - started


def settled(pid: int) -> dict[str, int]:
    """The size of a process once what waits in it has ended or timed out."""
    least, changed = size_of(pid), time.monotonic()
    while time.monotonic() - changed < 6:  # longer than a handshake may take
        time.sleep(0.2)
        size = size_of(pid)
        if (size["descriptors"], size["threads"]) < (least["descriptors"], least["threads"]):
            least, changed = size, time.monotonic()
    return least


@contextlib.contextmanager
def quiet_worker(**options: Any) -> Iterator[WorkerProcess]:
    """One that writes to nowhere, so that nobody need read it."""
    with open(os.devnull, "w") as nowhere, socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        sock.close()
        with WorkerProcess(address, stderr=nowhere.fileno(), **options) as worker:
            yield worker


def run(inputs: int, seed: int) -> dict[str, Any]:
    """Attacks a worker; what became of the inputs, how it grew, and the sessions in between.
    ``AssertionError`` where it did not hold."""
    began = time.monotonic()
    with (
        quiet_worker() as worker,
        contextlib.closing(Attack(parse_address(worker.address), seed)) as attack,
    ):
        pid = worker.process.pid
        seconds = [session(worker)]
        attack.many(min(inputs // 10, 2000))  # until what it keeps has been made
        attack.close()
        before = settled(pid)
        for done in range(0, inputs, _SESSION_EVERY):
            count = min(_SESSION_EVERY, inputs - done)
            attack.many(count // 2)
            seconds.append(session(worker, lambda count=count: attack.many(count - count // 2)))
            assert worker.process.poll() is None, f"the worker ended within input {done + count}"
        attack.close()
        seconds.append(session(worker))
        after = settled(pid)
    silent = {key: n for key, n in attack.outcomes.items() if "no answer" in key}
    assert not silent, silent
    assert after["descriptors"] <= before["descriptors"], (before, after)
    assert after["threads"] <= before["threads"], (before, after)
    assert after["bytes"] - before["bytes"] < _GROWTH_BYTES, (before, after)
    return {
        "inputs": inputs,
        "outcomes": dict(sorted(attack.outcomes.items())),
        "before": before,
        "after": after,
        "sessions": len(seconds),
        "slowest_session_s": round(max(seconds), 2),
        "seconds": round(time.monotonic() - began, 1),
    }


if __name__ == "__main__":
    command(run, __doc__)
