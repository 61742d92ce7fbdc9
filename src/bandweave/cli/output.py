"""Output: JSON and tables on standard output, everything else on standard error.

Knows how numbers are written for people; knows no commands and no engines.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from bandweave import figures

MAX_WIDTH = 100  # longer lines are hard to read
_TABLE_WIDTH = 80
_CONTROLS = {*range(0x20), *range(0x7F, 0xA0)} - {ord("\n"), ord("\t")}
_SHOWN = dict.fromkeys(_CONTROLS, "\ufffd")


class JsonFailure(Exception):
    """A failure of a command that prints JSON, raised from its cause: ``value`` is what there is
    to print."""

    def __init__(self, value: dict[str, Any]) -> None:
        super().__init__()
        self.value = value


def is_terminal() -> bool:
    """Whether people watch standard error: only then is progress drawn."""
    return sys.stderr.isatty()


def say(sentence: str = "") -> None:
    """One line on standard error. Nothing ends because nobody can hear it: the disk of a log is
    full, or its reader has gone."""
    with contextlib.suppress(OSError):
        print(sentence, file=sys.stderr, flush=True)


def remark(sentence: str) -> None:
    """Something of which the user need do nothing: one line in brackets on standard error."""
    say(f"({sentence})")


@contextlib.contextmanager
def status(words: str) -> Iterator[None]:
    """Says what is under way, where people watch; gone once done."""
    if not is_terminal():
        yield
        return
    from bandweave.cli.progress import status_line

    with status_line(words):
        yield


def print_json(value: Any) -> None:
    """One JSON object on standard output."""
    _write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    stderr: bool = False,
) -> None:
    """A table with a line under its head; the first column is words, the others numbers."""
    lines = [list(headings), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    gap = 2 if sum(widths) + 2 * (len(widths) - 1) <= _TABLE_WIDTH else 1
    text = [
        (" " * gap)
        .join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        .rstrip()
        for line in lines
    ]
    text.insert(1, "-" * (sum(widths) + gap * (len(widths) - 1)))
    print_text("\n".join(text), stderr=stderr)


def print_pairs(pairs: Sequence[tuple[str, str]], *, stderr: bool = False) -> None:
    """Names and values in two columns, the values folded under each other."""
    indent = max(len(name) for name, _ in pairs) + 2
    room = max(20, shutil.get_terminal_size().columns - indent)
    for name, value in pairs:
        folded = textwrap.wrap(value, min(room, MAX_WIDTH - indent)) or [""]
        text = f"\n{' ' * indent}".join(folded)
        print_text(f"{name.ljust(indent)}{text}", stderr=stderr)


def print_text(text: str = "", *, stderr: bool = False) -> None:
    """Text as it is, at once."""
    if stderr:
        say(text)
    else:
        _write(f"{text}\n")


def write_answer(piece: str) -> None:
    """A piece of an answer, to standard output at once.

    On a terminal control characters are shown as U+FFFD: a model must not move the cursor or set
    the clipboard.
    """
    _write(piece.translate(_SHOWN) if sys.stdout.isatty() else piece)


def flush() -> None:
    """Standard output, as far as it was printed and not written yet."""
    _write("")


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:  # a disk that is full says which
        raise OSError(error.errno, error.strerror, "standard output") from error


def size(count: float) -> str:
    """Bytes in powers of ten, as bandwidths are: ``"8.2 MB"``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale * 0.9995:
            value = count / scale
            return f"{value:.0f} {unit}" if value >= 99.95 else f"{value:.3g} {unit}"
    return f"{count:.0f} B"


def seconds(value: float) -> str:
    """A duration: ``"12 min"``, ``"1.24 s"``, ``"35.1 ms"``, ``"410 us"``."""
    return figures.seconds(value)


def duration(value: float) -> str:
    """What people wait for: ``"42 s"``, ``"3 min"``, ``"1 h 20 min"``."""
    minutes = round(value / 60)
    if value < 90:
        return f"{value:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def rate(value: float) -> str:
    """Tokens per second with three figures that matter."""
    return f"{value:.0f}" if value >= 99.5 else figures.figure(value)


def count(number: int, noun: str) -> str:
    """``"1 node"``, ``"2 nodes"``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
