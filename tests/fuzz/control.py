"""Attacks on a node's control channel, by somebody who knows the secret and says odd things.

``python -m tests.fuzz.control --inputs N --seed S`` plays N sessions of which one or a few messages
are not what a controller sends. A node that hangs, crashes, or meets an error that nobody foresaw,
fails the run; so does a process that grows. Nodes are threads of this process, which may use 6 GB;
every 2000th input goes to a worker's node instead, and a legitimate session follows it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import resource
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NoReturn

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.engine.engine import Engine
from bandweave.engine.options import EngineOptions
from bandweave.generation.request import Request
from bandweave.generation.sampling import SamplingParams
from bandweave.handshake.handshake import HandshakeError
from bandweave.mesh.channel import Channel, ChannelError
from bandweave.nodes.context import NodeContext
from bandweave.nodes.host_launcher import HostLauncher
from bandweave.nodes.process import SERVE, run_node
from bandweave.nodes.thread_launcher import ThreadLauncher
from bandweave.run_options import RunOptions
from tests.fuzz.command import command
from tests.fuzz.handshake import quiet_worker, size_of
from tests.fuzz.mutations import Mutator, text_of
from tests.helpers.connections import SECRET, framed, wait_until
from tests.helpers.workers import WorkerProcess

_PATIENCE = 60.0  # on a busy machine
_MEMORY_BYTES = 6 << 30
_WORKER_EVERY = 2000
_GROWTH_BYTES = 64 << 20
_SILENT = ("progress", "alive", "tokens", "content")
_UNANSWERED = ("cancel", "shutdown")
#: What a node out of a generation drops: it was meant for one that has ended.
_OF_A_GENERATION = ("ask_state", "ask_standby", "ask_statistics", "standby", "submit", "vocabulary")
_ANSWERS = {"describe", "hold", "join", "submit", "ask_statistics", "leave"}


class NobodyComes:
    """The door of a node that no other node finds."""

    def get_mesh(self, session: str, node: int, timeout: float | None = None) -> NoReturn:
        raise HandshakeError(f"node {node} did not connect")

    def open(self) -> None: ...

    def finish(self) -> None: ...


def recorded() -> list[dict[str, Any]]:
    """The messages of a good session of one node."""
    said: list[dict[str, Any]] = []
    real = Channel.send

    def send(self: Channel, message: dict[str, Any], *, timeout: float | None = None) -> None:
        if self.peer.startswith("node "):
            said.append(json.loads(json.dumps(message)))
        real(self, message, timeout=timeout)

    Channel.send = send
    try:
        options = EngineOptions(threads=1, run=RunOptions(context=256))
        params = SamplingParams(temperature=0.7, max_tokens=4)
        with (
            Folder.open(demo_folder()) as folder,
            Engine.start(folder, options, ThreadLauncher()) as engine,
        ):
            engine.generate([Request(tokens=(1, 2, 3), params=params)], digest=True)
            engine.statistics()
    finally:
        Channel.send = real
    for message in said:  # as for a node in a process of its own
        if message["type"] == "join":
            message["addresses"] = [["127.0.0.1", 1]]
    cancel = {"type": "cancel", "ids": [1]}
    return [{"type": "describe"}, *said[:-1], cancel, {"type": "shutdown"}]


class Script:
    """What is said in one session: messages, and bytes that are none."""

    def __init__(self, mutator: Mutator, good: list[dict[str, Any]]) -> None:
        self._mutator, self._good = mutator, good

    def make(self) -> list[bytes]:
        random = self._mutator.random
        messages = [dict(message) for message in self._good]
        # Most of what can go wrong is in the assignment and the requests; a whole load takes long.
        for _ in range(random.choice((1, 1, 1, 2, 4))):
            at = random.choice((min(1, len(messages) - 1), random.randrange(len(messages))))
            choice = random.random()
            if choice < 0.7:
                mutated = self._mutator.json(messages[at], random.randrange(1, 3))
                messages[at] = mutated
            elif choice < 0.8:
                messages.insert(at, messages[random.randrange(len(messages))])
            elif choice < 0.9:
                messages.insert(at, self._mutator.json({"type": random.choice(_TYPES)}))
            else:
                del messages[at]
            if not messages:
                break
        parts = [framed(text_of(message)) for message in messages]
        if random.random() < 0.1:
            at = random.randrange(len(parts) + 1)
            parts[at:] = [self._mutator.bytes(b"".join(parts[at:])[:4000], 3)]
        return parts


_TYPES = (*_ANSWERS, "cancel", "shutdown", "probe_machine", "probe_links", "failed", "ready", "")


def play(sock: socket.socket, parts: list[bytes]) -> str:
    """Says it all, as a controller that waits for its answers; the last thing heard."""
    channel = Channel(sock, "the node", send_timeout=_PATIENCE)
    last, inside = "nothing", False
    for part in parts:
        try:
            sock.setblocking(True)
            sock.settimeout(_PATIENCE)
            sock.sendall(part)
            sock.setblocking(False)
            if not _is_answered(part, inside):
                continue
            deadline = time.monotonic() + _PATIENCE
            while True:
                message = channel.receive(max(0.0, deadline - time.monotonic()))
                last = str(message.get("type"))
                if last not in _SILENT:
                    break
            if last in ("loaded", "broken", "left"):
                inside = last == "loaded"
            if last == "failed":
                return "failed: " + ("mistake" if message["mistake"] else "error")
        except TimeoutError:
            return "no answer"
        except (ChannelError, ConnectionError):
            return f"ended after {last}"
    return f"over after {last}"


def _is_answered(part: bytes, inside: bool) -> bool:
    """Whether something is to come after this, ``inside`` a generation or not; bytes that are no
    message may be part of one."""
    magic, length, zero = struct.unpack_from("<4sII", part) if len(part) >= 12 else (b"", 0, 0)
    if magic != b"bwv1" or zero or length != len(part) - 12:
        return False
    try:
        message = json.loads(part[12:])
    except (ValueError, RecursionError):
        return True
    silent = _UNANSWERED if inside else (*_UNANSWERED, *_OF_A_GENERATION)
    return not isinstance(message, dict) or message.get("type") not in silent


def in_thread(parts: list[bytes], complaints: list[str]) -> str:
    """One session with a node in this process."""
    ours, theirs = socket.socketpair()
    context = NodeContext(
        name="node 0",
        node=0,
        session="s",
        channel=Channel(theirs, "the controller", send_timeout=None),
        secret=SECRET,
        listener=NobodyComes(),
        address=("127.0.0.1", 1),
        threads=1,
        complain=complaints.append,
    )

    def serve() -> None:
        try:
            run_node(SERVE, context)
        except BaseException as error:
            complaints.append(f"Traceback: {error!r}")
            raise
        finally:
            context.channel.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with ours:
        outcome = play_ready(ours, parts)
        with contextlib.suppress(OSError):
            ours.shutdown(socket.SHUT_RDWR)
        thread.join(_PATIENCE)
    if thread.is_alive():
        faulthandler.dump_traceback(all_threads=True)
        return "hangs"
    return outcome


def play_ready(sock: socket.socket, parts: list[bytes]) -> str:
    channel = Channel(sock, "the node")
    assert channel.receive(_PATIENCE)["type"] == "ready"
    return play(sock, parts)


def with_worker(worker: WorkerProcess, parts: list[bytes]) -> str:
    """One session with the node of a worker, which serves others afterwards."""
    with HostLauncher([worker.address], SECRET, connect_timeout=30) as launcher:
        (handle,) = launcher.start(1)
        with handle.channel.detach() as sock:
            outcome = play(sock, parts)
    assert worker.process.poll() is None, "the worker ended"
    return outcome


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def run(inputs: int, seed: int, note: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Plays the sessions; what became of them. ``AssertionError`` where a node did not hold."""
    began, affinity = time.monotonic(), os.sched_getaffinity(0)
    mutator = Mutator(seed)
    script = Script(mutator, recorded())
    outcomes: Counter[str] = Counter()
    unforeseen: Counter[str] = Counter()
    sessions = 0
    before: dict[str, int] = {}
    with quiet_worker(serve=SERVE) as worker, little_memory():
        for number in range(inputs):
            parts, complaints = script.make(), []
            if number % _WORKER_EVERY == _WORKER_EVERY - 1:
                outcome = with_worker(worker, parts)
                sessions += 1
            else:
                outcome = in_thread(parts, complaints)
            outcomes[outcome] += 1
            if any("Traceback" in line for line in complaints):
                unforeseen[complaints[-1].strip()[:200]] += 1
                note(f"input {number}: " + "\n".join(complaints))
            assert outcome not in ("hangs", "no answer"), (number, outcome, parts)
            if number == inputs // 5:
                before = size_of(os.getpid())
        sessions += good_sessions(worker)
        os.sched_setaffinity(0, affinity)
        before = before or size_of(os.getpid())
        wait_until(lambda: size_of(os.getpid())["threads"] <= before["threads"], 10)
        after = size_of(os.getpid())
    assert not unforeseen, dict(unforeseen)
    assert after["descriptors"] <= before["descriptors"] + 2, (before, after)
    assert after["threads"] <= before["threads"] + 1, (before, after)
    assert after["bytes"] - before["bytes"] < _GROWTH_BYTES, (before, after)
    return {
        "inputs": inputs,
        "outcomes": dict(sorted(outcomes.items())),
        "unforeseen": dict(unforeseen),
        "before": before,
        "after": after,
        "sessions_with_a_worker": sessions,
        "seconds": round(time.monotonic() - began, 1),
    }


def good_sessions(worker: WorkerProcess) -> int:
    """A legitimate session after all that."""
    with HostLauncher([worker.address], SECRET, connect_timeout=30) as launcher:
        (handle,) = launcher.start(1)
        handle.channel.send({"type": "describe"})
        assert handle.channel.receive(30)["type"] == "description"
    return 1


if __name__ == "__main__":
    faulthandler.enable()
    command(partial(run, note=partial(print, file=sys.stderr)), __doc__)
