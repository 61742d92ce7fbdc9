"""The document of results: rewrites its marked parts and leaves the words between them alone.

A part stands between ``<!-- benchmarks: NAME -->`` and ``<!-- end of NAME -->``. Knows files and
marks; knows no measurements.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine, table
from benchmarks.result import Figure, Result

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


def write_summary(path: Path, figures: Sequence[Figure]) -> None:
    """The table of all figures of which something is asked, before the experiments."""
    asked = [figure for figure in figures if figure.met is not None]
    if not asked:
        return
    rows = table.markdown(Result(experiment=SUMMARY, title="", figures=asked))
    text = path.read_text(encoding="utf-8")
    path.write_text(
        with_part(text, SUMMARY, f"## What is asked, and what there is\n\n{rows}", first=True),
        encoding="utf-8",
    )


def with_part(text: str, name: str, content: str, *, first: bool = False) -> str:
    """``text`` with ``content`` as its part ``name``: in the part's place, or at the end (before
    all other parts where ``first``)."""
    begin, end = f"<!-- benchmarks: {name} -->", f"<!-- end of {name} -->"
    part = f"{begin}\n\n{content.strip()}\n\n{end}\n"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end) + "\n?", re.DOTALL)
    if pattern.search(text):
        return pattern.sub(lambda match: part, text, count=1)
    at = text.find("<!-- benchmarks: ") if first else -1
    if at >= 0:
        return f"{text[:at]}{part}\n{text[at:]}"
    return f"{text.rstrip()}\n\n{part}"
