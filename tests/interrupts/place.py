"""A place of its own for one command: home, temporary folder and working folder, and what the
command left there. Knows files and processes; knows no commands."""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from tests.helpers.command import MARK, SOURCE, marked


@dataclass(frozen=True, kw_only=True)
class Place:
    """``folder``: empty, and the place's alone."""

    folder: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        for name in ("home", "tmp", "work"):
            (self.folder / name).mkdir()

    @property
    def work(self) -> Path:
        """Where the command runs."""
        return self.folder / "work"

    def environment(self, **more: str) -> dict[str, str]:
        """For a command from this source tree that knows no other home."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(
            ("XDG_", "HF_", "BANDWEAVE_"))}  # fmt: skip
        own = {
            "PYTHONPATH": str(SOURCE),
            "COLUMNS": "80",
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            "OMP_NUM_THREADS": "1",
            MARK: self.mark,
        }
        return {**kept, **own, **more}

    def command(self, *arguments: str) -> list[str]:
        """The words that run bandweave."""
        return [sys.executable, "-m", "bandweave", *arguments]

    def files(self) -> set[str]:
        """All files and folders in it, as paths from its folder."""
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}

    def left(self, known: set[str], allowed: tuple[str, ...]) -> list[str]:
        """What is there that neither was before nor may be left."""
        found = self.files() - known
        return sorted(one for one in found if not any(fnmatch(one, form) for form in allowed))

    def processes(self, but: frozenset[int] = frozenset()) -> list[int]:
        """All that runs with the place's mark."""
        return [pid for pid in marked(self.mark) if pid not in but]

    def none_left(
        self, seconds: float, but: frozenset[int] = frozenset(), *, most: int = 0
    ) -> bool:
        """Whether all processes but those, and ``most`` others, end within so many seconds."""
        deadline = time.monotonic() + seconds
        while len(self.processes(but)) > most:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def end(self) -> None:
        """Kills what is left."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.none_left(5.0)
