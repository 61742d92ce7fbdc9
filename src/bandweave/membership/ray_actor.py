"""The node actor: what Ray runs on every machine, so that a worker runs there.

The worker is a process of its own, started as `bandweave join` starts it: it outlives the actor and
all of Ray, so that a stream under way notices nothing of what happens there. The actor starts it
anew when it ends. No activation passes through here. Knows processes; knows no models.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_LOOK_SECONDS = 1.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
_JOIN_SECONDS = 60.0


def secret_name(secret: bytes) -> str:
    """By which a machine finds the secret that is meant; tells nothing of it."""
    return hmac.new(secret, b"bandweave: which secret", hashlib.sha256).hexdigest()[:32]


class NodeActor:
    """One machine's. ``token_file``: where its copy of the secret may lie, besides where `bandweave
    join` keeps it; ``name``: of the secret, see ``secret_name``; ``encrypted``: what leaves the
    worker's machine must be. ``ValueError`` where the machine has another version of bandweave, or
    no secret of that name."""

    def __init__(
        self,
        *,
        head: str,
        token_file: str,
        name: str,
        version: str,
        models: Sequence[str],
        threads: int | None,
        encrypted: bool = False,
    ) -> None:
        from bandweave import __version__

        if version != __version__:
            raise ValueError(
                f"bandweave {__version__} is installed there, {version} at the head: install the "
                "same on both"
            )
        token = find_token(token_file, name)
        self._command = [sys.executable, "-P", "-m", "bandweave", "join", head, "--token-file",
                         token, "--worker-listen", "0.0.0.0:0", "--placed-by", "ray",
                         "--json"]  # fmt: skip
        for root in models:
            if Path(root).is_dir():  # a machine may have none, and gets the files from another
                self._command += ["--models", root]
        if threads is not None:
            self._command += ["--threads", str(threads)]
        if encrypted:
            self._command.append("--require-encryption")
        self._starts, self._trouble, self._over = 0, "", threading.Event()
        self._joining: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name="worker", daemon=True)
        self._thread.start()

    def state(self) -> dict[str, Any]:
        """``starts`` of the worker so far, and what is in the way, empty where it runs."""
        return {"starts": self._starts, "trouble": self._trouble, "pid": os.getpid()}

    def stop(self) -> bool:
        """Starts no worker any more."""
        self._over.set()
        joining = self._joining
        if joining is not None:
            with contextlib.suppress(OSError):
                joining.terminate()
        self._thread.join(5.0)
        return not self._thread.is_alive()

    def _keep(self) -> None:
        """Has a worker run on this machine, whoever started it."""
        from bandweave.membership.records import cluster_folder, find_record

        pause = _FIRST_PAUSE
        while not self._over.is_set():
            began = time.monotonic()
            if find_record(cluster_folder(make=True), "worker") is None:
                self._trouble = self._start()
                if self._trouble:
                    self._over.wait(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
                    continue
                pause = _FIRST_PAUSE
            else:
                self._trouble = ""
            self._over.wait(max(0.0, began + _LOOK_SECONDS - time.monotonic()))

    def _start(self) -> str:
        """What went wrong; empty where the worker has joined."""
        self._starts += 1
        self._joining = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            out, _ = self._joining.communicate(timeout=_JOIN_SECONDS)
        except subprocess.TimeoutExpired:
            self._joining.kill()
            out, _ = self._joining.communicate()
        status, self._joining = self._joining.returncode, None
        if status == 0:
            return ""
        with contextlib.suppress(ValueError):
            said = json.loads(out)
            if isinstance(said, dict) and said.get("error"):
                return str(said["error"])
        return f"the worker did not start (exit status {status})"


def find_token(token_file: str, name: str) -> str:
    """The file on this machine that holds the secret of that name."""
    from bandweave.handshake.secret import read_secret
    from bandweave.membership.records import cluster_folder

    folder = cluster_folder()
    for path in (Path(token_file), folder / "joined-token", folder / "token"):
        with contextlib.suppress(ValueError, OSError):
            if path.is_file() and secret_name(read_secret(path)) == name:
                return str(path)
    raise ValueError(
        f"the machine has no copy of the cluster's secret: neither at {token_file} nor from "
        "`bandweave join`; copy the token file there"
    )
