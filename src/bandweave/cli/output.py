"""Output: JSON and tables on standard output, everything else on standard error.

Knows how numbers are written for people; knows no commands and no engines.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

MAX_WIDTH = 100  # longer lines are hard to read


def is_terminal() -> bool:
    """Whether people watch standard error: only then is progress drawn."""
    return sys.stderr.isatty()


def say(sentence: str = "") -> None:
    """One line on standard error."""
    print(sentence, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """One JSON object on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def console(*, stderr: bool = False) -> Console:
    """A rich console no wider than what reads well."""
    from rich.console import Console

    result = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if result.width > MAX_WIDTH:
        result.width = MAX_WIDTH
    return result


def print_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    left: int = 1,
    gap: int = 2,
    stderr: bool = False,
) -> None:
    """A table without lines; the first ``left`` columns are words, the others numbers."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, gap, 0, 0), show_edge=False, pad_edge=False)
    for index, heading in enumerate(headings):
        side = "left" if index < left else "right"
        table.add_column(heading, justify=side, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console(stderr=stderr).print(table)


def print_pairs(pairs: Sequence[tuple[str, str]], *, stderr: bool = False) -> None:
    """Names and values in two columns, the values folded under each other."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(name, value)
    console(stderr=stderr).print(table)


def size(count: float) -> str:
    """Bytes in powers of ten, as bandwidths are: ``"8.2 MB"``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale * 0.9995:
            value = count / scale
            return f"{value:.0f} {unit}" if value >= 99.95 else f"{value:.3g} {unit}"
    return f"{count:.0f} B"


def seconds(value: float) -> str:
    """A duration: ``"1.24 s"``, ``"35.1 ms"``, ``"410 us"``."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if value >= scale * 0.9995:
            return f"{value / scale:.3g} {unit}"
    return f"{value * 1e6:.0f} us"


def rate(value: float) -> str:
    """Tokens per second with three figures that matter."""
    return f"{value:.0f}" if value >= 99.5 else f"{value:.3g}"


def count(number: int, noun: str) -> str:
    """``"1 node"``, ``"2 nodes"``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
