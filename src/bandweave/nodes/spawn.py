"""Starting the process of a node: sockets by number, settings by message, output kept or passed on.

Runs in the process that starts nodes (a controller or a worker). Knows the command line of
``nodes.process``; knows no sessions and no networks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from bandweave.address_space import ADDRESS_SPACE
from bandweave.mesh.address import Address
from bandweave.mesh.channel import Channel
from bandweave.mesh.sealing import Keys
from bandweave.nodes.process import SERVE

_TAIL_BYTES = 64 << 10
_MODULE = "bandweave.nodes.process"


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    """The first message to a node's process. ``control_keys``: those of its control channel, where
    that is a socket of its own and sealed."""

    name: str
    node: int
    session: str
    address: Address
    secret: bytes = field(repr=False)
    threads: int | None = None
    model_roots: Sequence[Path] = ()
    cache: str = ""
    isa: str = ""
    encrypted: bool = False
    control_keys: Keys | None = field(default=None, repr=False)

    def message(self) -> dict[str, object]:
        """As JSON can carry it; with this process's module path, so that both find the same."""
        return {
            "type": "settings",
            "name": self.name,
            "node": self.node,
            "session": self.session,
            "address": list(self.address),
            "secret": self.secret.hex(),
            "threads": self.threads,
            "model_roots": [str(root) for root in self.model_roots],
            "cache": self.cache,
            "isa": self.isa,
            "encrypted": self.encrypted,
            "control_keys": _texts(self.control_keys),
            "path": [entry for entry in sys.path if entry],
        }


def _texts(keys: Keys | None) -> list[str]:
    return [] if keys is None else [keys.send.hex(), keys.receive.hex()]


def spawn(
    settings: NodeSettings,
    *,
    listening: socket.socket | None = None,
    control: socket.socket | None = None,
    output: int = subprocess.PIPE,
    python: str = sys.executable,
    serve: str = SERVE,
) -> tuple[subprocess.Popen[bytes], Channel]:
    """Starts a node's process in a session of its own, out of reach of the terminal's Ctrl-C.

    The process gets copies of ``listening``, where it takes the other nodes' connections itself,
    and of ``control``; the caller keeps its own. Returns the process and the channel to it, which
    is the node's control channel where ``control`` is None. Closing that channel ends the process.
    Standard output and error both go to ``output``. ``OSError`` where the system gives no process.
    """
    ours, theirs = socket.socketpair()
    inherited = {"--starter-fd": theirs.fileno()}
    if listening is not None:
        inherited["--listener-fd"] = listening.fileno()
    if control is not None:
        inherited["--control-fd"] = control.fileno()
    command = [python, "-P", "-m", _MODULE, "--serve", serve]
    for option, descriptor in inherited.items():
        command += [option, str(descriptor)]
    # The kernel ties a child to the thread that started it: only the main thread lasts long enough.
    if threading.current_thread() is threading.main_thread():
        command += ["--die-with", str(os.getpid())]
    channel = Channel(ours, settings.name)
    try:
        with ADDRESS_SPACE:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output == subprocess.PIPE else output,
                pass_fds=tuple(inherited.values()),
                start_new_session=True,
            )
    except BaseException:
        channel.close()
        raise
    finally:
        theirs.close()
    with contextlib.suppress(OSError):  # a process that died at once is reported by its end
        channel.send(settings.message())
    return process, channel


def end_process(process: subprocess.Popen[bytes], seconds: Sequence[float]) -> bool:
    """Waits for a process to end, then terminates it, then kills it: so many ``seconds`` each.
    False where it still runs, since the system holds it (in a read that no disk answers, for one);
    it ends when it is let go."""
    acts = (lambda: None, process.terminate, process.kill)
    for act, patience in zip(acts, seconds, strict=True):
        act()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            return True
    return False


def describe_end(status: int) -> str:
    """``Popen.returncode`` in words."""
    if status >= 0:
        return "ended" if status == 0 else f"ended with exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = " (by hand, or by the system for want of memory)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


class Tail:
    """Reads a process's output to its end, in a thread, and keeps the last 64 KB."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._lines: deque[bytes] = deque()
        self._thread = threading.Thread(target=self._read, name="output", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        kept = 0
        with self._stream, contextlib.suppress(OSError, ValueError):
            while line := self._stream.readline(_TAIL_BYTES):
                self._lines.append(line)
                kept += len(line)
                while kept > _TAIL_BYTES:
                    kept -= len(self._lines.popleft())

    def lines(self, seconds: float = 0.5) -> list[str]:
        """The last lines that are not blank; waits ``seconds`` for the output to end first."""
        self._thread.join(seconds)
        texts = [line.decode(errors="replace").rstrip() for line in list(self._lines)]
        return [text for text in texts if text]
