"""Starting a command of bandweave in the background, and hearing whether it came up.

The child writes one JSON object to a pipe once it is ready: that it is, or why it never will be.
Knows no commands.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bandweave.membership.processes import end, started_at

_MOST_BYTES = 64 << 10
_LAST_BYTES = 4000


class BackgroundError(OSError):
    """A command that did not come up in the background; says why."""


def start(
    arguments: Sequence[str], log: Path, *, seconds: float, environment: dict[str, str]
) -> tuple[int, dict[str, Any]]:
    """Starts ``bandweave`` with these arguments and ``--ready-fd``, out of reach of the terminal;
    its number, and what it said once it was ready. ``BackgroundError`` where it ends before or
    takes longer than ``seconds``; nothing of it is left then."""
    reading, writing = os.pipe()
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            begin = os.fstat(descriptor).st_size
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "bandweave", *arguments, "--ready-fd", str(writing)],
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                pass_fds=(writing,),
                start_new_session=True,
                env=environment,
            )
        finally:
            os.close(descriptor)
    except OSError as error:
        os.close(reading)
        raise BackgroundError(f"it could not be started: {error.strerror or error}") from error
    finally:
        os.close(writing)
    started = started_at(process.pid)
    try:
        said = _hear(reading, seconds)
    except BaseException:
        end(process.pid, started)
        raise
    finally:
        os.close(reading)
    if said is None:
        end(process.pid, started)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)
        raise BackgroundError(_last_words(log, begin) or f"it was not ready within {seconds:g} s")
    process.returncode = 0  # it outlives us: nobody waits for it, or warns that nobody did
    return process.pid, said


def say_ready(descriptor: int | None, **said: Any) -> None:
    """In the child: it is ready."""
    if descriptor is not None:
        with contextlib.suppress(OSError):
            os.write(descriptor, json.dumps(said).encode() + b"\n")
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _hear(descriptor: int, seconds: float) -> dict[str, Any] | None:
    deadline, content = time.monotonic() + seconds, b""
    while not content.endswith(b"\n") and len(content) < _MOST_BYTES:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            return None
        piece = os.read(descriptor, 4096)
        if not piece:
            return None
        content += piece
    found = json.loads(content)
    return found if isinstance(found, dict) else None


def _last_words(log: Path, begin: int) -> str:
    """The last line that the command wrote since it was started."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(begin, file.tell() - _LAST_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    lines = [line.strip() for line in lines if line.strip()]
    return lines[-1].removeprefix("bandweave: ") if lines else ""
