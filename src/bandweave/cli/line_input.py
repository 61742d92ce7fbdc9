"""LineInput: what the user types in a chat, from a terminal or from a pipe. Knows no models."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Self

_HISTORY_LINES = 1000
_FIRST, _MORE = "> ", "... "


class LineInput:
    """Reads texts; a line that ends in a backslash goes on in the next one.

    On a terminal with line editing and a history, which is kept in ``history`` if given. A context
    manager.
    """

    def __init__(self, history: Path | None = None) -> None:
        self.interactive = sys.stdin.isatty() and sys.stdout.isatty()
        self._history = history if self.interactive else None
        self._number = 0  # of lines read from a pipe

    def __enter__(self) -> Self:
        if self.interactive:
            with contextlib.suppress(ImportError):
                import readline

                readline.set_auto_history(True)
                if self._history is not None:
                    with contextlib.suppress(OSError):
                        readline.read_history_file(self._history)
        return self

    def __exit__(self, *_: object) -> None:
        if self._history is None:
            return
        with contextlib.suppress(ImportError, OSError):
            import readline

            readline.set_history_length(_HISTORY_LINES)
            self._history.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # What people ask is their own business.
            os.close(os.open(self._history, os.O_CREAT | os.O_WRONLY, 0o600))
            readline.write_history_file(self._history)

    def read(self) -> str | None:
        """The next text; None at the end of the input. Ctrl-C on a terminal gives up the line."""
        lines: list[str] = []
        while True:
            try:
                line = self._line(_MORE if lines else _FIRST)
            except KeyboardInterrupt:
                if not self.interactive:
                    raise
                print("\n(Ctrl-D leaves)", file=sys.stderr, flush=True)
                lines.clear()
                continue
            if line is None:
                return "\n".join(lines) if lines else None
            if not line.endswith("\\"):
                return "\n".join([*lines, line])
            lines.append(line[:-1])

    def _line(self, prompt: str) -> str | None:
        if self.interactive:
            try:
                return input(prompt)
            except EOFError:
                print(file=sys.stderr)
                return None
        line = sys.stdin.buffer.readline()
        self._number += 1
        try:
            return line.decode("utf-8").removesuffix("\n").removesuffix("\r") if line else None
        except UnicodeDecodeError as error:
            raise ValueError(
                f"line {self._number} of standard input is not UTF-8 text: its byte {error.start} "
                "is wrong"
            ) from error
