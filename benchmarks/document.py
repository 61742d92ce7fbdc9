"""The document of results: rewrites its marked parts and leaves the words between them alone.

A part stands between ``<!-- benchmarks: NAME -->`` and ``<!-- end of NAME -->``. Knows files and
marks; knows no measurements.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from benchmarks import machine, table
from benchmarks.result import Result

SUMMARY = "summary"
_START = """\
# Performance

Measured by `make bench`: bandweave and its peers in turns (A B B A) on one machine, ratios taken
inside rounds, medians with 95% bootstrap intervals. Rounds are added until the interval's bad end
lies within 5% of the median; figures that never got there are marked "wide". Every round also
reads memory plainly, as a yardstick: on machines whose memory is shared with neighbours only ratios
of one run mean anything.
"""


def write(path: Path, result: Result, found: dict[str, Any], charts: Sequence[Path]) -> None:
    """Puts a result into the document, which is begun where it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_text(encoding="utf-8") if path.exists() else _START
    parts = [f"## {result.title}", machine.sentences(found), table.markdown(result)]
    for chart in charts:
        relative = Path(os.path.relpath(chart, path.parent)).as_posix()
        parts.append(f"![{result.title}]({relative})")
    text = with_part(text, result.experiment, "\n\n".join(parts))
    path.write_text(text, encoding="utf-8")


def write_summary(path: Path, order: Sequence[str]) -> None:
    """The table of all figures of which something is asked, before the experiments; these stand in
    ``order``. Their own parts of the document tell, for each may be of another day and machine."""
    text = path.read_text(encoding="utf-8")
    rows = [row for name in order for row in _asked_rows(_part(text, name))]
    if not rows:
        return
    lines = "\n".join([*table.figure_headings(), *rows])
    path.write_text(
        with_part(text, SUMMARY, f"## What is asked, and what there is\n\n{lines}", first=True),
        encoding="utf-8",
    )


def _asked_rows(part: str) -> list[str]:
    """The lines of a part's table of figures of which something is asked."""
    headings = table.figure_headings()
    lines = part.splitlines()
    if headings[0] not in lines:
        return []
    below = lines[lines.index(headings[0]) + len(headings) :]
    rows = list(takewhile(lambda line: line.startswith("|"), below))
    return [row for row in rows if row.split(" | ")[-2].strip()]


def _part(text: str, name: str) -> str:
    found = _pattern(name).search(text)
    return found.group() if found else ""


def _pattern(name: str) -> re.Pattern[str]:
    begin, end = _marks(name)
    return re.compile(re.escape(begin) + ".*?" + re.escape(end) + "\n?", re.DOTALL)


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- benchmarks: {name} -->", f"<!-- end of {name} -->"


def with_part(text: str, name: str, content: str, *, first: bool = False) -> str:
    """``text`` with ``content`` as its part ``name``: in the part's place, or at the end (before
    all other parts where ``first``)."""
    begin, end = _marks(name)
    part = f"{begin}\n\n{content.strip()}\n\n{end}\n"
    if _part(text, name):
        return _pattern(name).sub(lambda match: part, text, count=1)
    at = text.find("<!-- benchmarks: ") if first else -1
    if at >= 0:
        return f"{text[:at]}{part}\n{text[at:]}"
    return f"{text.rstrip()}\n\n{part}"
