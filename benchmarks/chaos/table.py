"""``python -m benchmarks.chaos.table FILE ...``: what trials found (``--json``), as a table in
Markdown."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.chaos.faults import MACHINE, NOTHING, PROCESS
from benchmarks.chaos.report import PART_NAMES, figures_of
from benchmarks.chaos.silences import Felt

_ORDER = (NOTHING, *PROCESS, *MACHINE, "two at once")


def rows(trials: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Lines of Markdown, a row for each kind of fault of all trials together."""
    felt = [
        Felt(title=one["title"], kind=one["kind"], at_s=one["at_s"], spoke=tuple(one["spoke"]),
             silences=tuple(one["silences"]), recoveries=tuple(one["recoveries"]))
        for trial in trials for one in trial["faults"]
    ]  # fmt: skip
    names = ["fault", "times", "next token, s", *PART_NAMES.values()]
    yield f"| {' | '.join(names)} |"
    yield "| --- |" + " ---: |" * (len(names) - 1)
    for kind in _ORDER:
        of_kind = [one for one in felt if one.kind == kind]
        if of_kind:
            figures = figures_of(of_kind)
            parts = figures["parts"] or dict.fromkeys(PART_NAMES, (None, None))
            pairs = [(figures["median_s"], figures["worst_s"]), *parts.values()]
            cells = [kind, str(len(of_kind)), *map(_pair, pairs)]
            yield f"| {' | '.join(cells)} |"


def _pair(pair: Sequence[float | None]) -> str:
    half, most = pair
    return "" if half is None or most is None else f"{half:.2f} ({most:.2f})"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos.table", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    given = parser.parse_args(arguments)
    trials = [json.loads(path.read_text(encoding="utf-8")) for path in given.files]
    print("\n".join(rows(trials)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
