"""Placing by Ray, as a head sees it: keeps a placer running, and passes on what that says.

Ray's head may go, and the placer with it: the door and all workers stay. Imports no Ray.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

from bandweave.handshake.secret import read_secret
from bandweave.membership.caller import pauses
from bandweave.membership.door import Door
from bandweave.membership.ray_actor import secret_name
from bandweave.membership.ray_processes import check_ray, ray_environment
from bandweave.membership.records import cluster_folder, find_record
from bandweave.mesh.printable import printable

_WHO = "ray"
_LASTING_SECONDS = 60.0
_STOP_SECONDS = 8.0
_LONGEST_LINE = 4000
_SILENT_SECONDS = 15  # a placer looks every two seconds, and waits a second for each actor


class Placing:
    """A context manager. Where bandweave started Ray here, the placer knows Ray's token; of another
    cluster it has to be in the environment, as Ray wants it."""

    def __init__(
        self,
        door: Door,
        head: str,
        address: str,
        *,
        token: Path,
        models: Sequence[Path] = (),
        threads: int | None = None,
        require_encryption: bool = False,
        log: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        check_ray()
        self._door, self._address, self._log = door, address, log
        folder = cluster_folder()
        ours = find_record(folder, "ray")
        self._environment = None
        if ours is not None and ours.address == address:
            self._environment = ray_environment(folder, token)
        self._command = [
            sys.executable, "-P", "-m", "bandweave.membership.ray_placer", "--address", address,
            "--head", head, "--token-file", str(token.resolve()), "--secret-name",
            secret_name(read_secret(token)),
        ]  # fmt: skip
        self._command += [word for root in models for word in ("--models", str(root))]
        if threads is not None:
            self._command += ["--threads", str(threads)]
        if require_encryption:
            self._command.append("--require-encryption")
        self._said = ""
        self._over = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="placing", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        process = self._process
        if process is not None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
            process.kill()
        self._thread.join()

    def _run(self) -> None:
        waits = pauses()
        while not self._over.is_set():
            began = time.monotonic()
            last = self._place()
            if self._over.is_set():
                return
            self._say(f"Ray at {self._address} is out of reach, workers go on: {last}")
            if time.monotonic() - began > _LASTING_SECONDS:
                waits = pauses()
            self._over.wait(next(waits))

    def _place(self) -> str:
        """One life of a placer; its last words."""
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment,
        )
        last = "it says nothing"
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in self._lines(stream.fileno()):
                text = line.decode(errors="replace").strip()
                try:
                    said = json.loads(text)
                except ValueError:
                    said = None
                if isinstance(said, dict) and isinstance(said.get("note"), str):
                    self._say(said["note"])
                elif text:
                    last = printable(text)
        self._process.wait()
        return last

    def _lines(self, descriptor: int) -> Iterator[bytes]:
        """What the placer writes, to its end. Says so where it is silent: then Ray is."""
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        rest = b""
        while True:
            if not poll.poll(_SILENT_SECONDS * 1000):
                self._say(f"Ray at {self._address} is out of reach, workers go on: it says nothing")
                poll.poll()
            piece = os.read(descriptor, _LONGEST_LINE)
            if not piece:
                return
            *lines, rest = (rest + piece).split(b"\n")
            yield from lines
            rest = rest[-_LONGEST_LINE:]

    def _say(self, sentence: str) -> None:
        if sentence != self._said:
            self._said = sentence
            self._door.note(_WHO, printable(sentence)[:_LONGEST_LINE])
            self._log(sentence)
