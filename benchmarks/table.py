"""Tables: a result as text for a terminal and as markdown. Knows results; knows no files."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.result import Figure, Result, Series
from benchmarks.statistics import Estimate

_SUFFIX = {"x": "", "%": " %", "us": " µs", "s": " s", "GB/s": " GB/s", "tokens/s": " tokens/s"}
_HEADINGS = ("figure", "median", "95% interval", "rounds", "asked", "")
_VERDICTS = {True: "met", False: "not met", None: ""}

Rows = list[list[str]]


def number(value: float) -> str:
    """Three figures that matter."""
    return f"{value:.0f}" if abs(value) >= 99.5 else f"{value:#.3g}".rstrip(".")


def figure_rows(figures: Sequence[Figure]) -> Rows:
    """``_HEADINGS`` and a row a figure."""
    return [list(_HEADINGS), *(_figure_row(figure) for figure in figures)]


def series_rows(series: Series) -> Rows:
    """A row a place, a column a contestant; the ratio of the first two, where there are two."""
    names = series.names
    compare = len(names) >= 2
    headings = [series.axis, *(f"{name} ({series.unit})" for name in names)]
    rows = [headings + (["first over second"] if compare else [])]
    for place in series.places:
        found = [series.at(name, place) for name in names]
        row = [str(place), *(_interval(one) if one else "-" for one in found)]
        if compare:
            first, second = found[:2]
            some = first and second and second.median
            row.append(number(first.median / second.median) if some else "-")
        rows.append(row)
    return rows


def markdown(result: Result) -> str:
    """The result's part of a document, below its heading."""
    parts = []
    if result.figures:
        parts.append(_markdown_table(figure_rows(result.figures)))
    parts += [_markdown_table(series_rows(series)) for series in result.series]
    parts += [_folded(note) for note in result.notes]
    return "\n\n".join(parts)


def terminal(result: Result) -> str:
    """The result for people who watch it being made."""
    tables = [figure_rows(result.figures)] if result.figures else []
    tables += [series_rows(series) for series in result.series]
    texts = [_aligned(rows) for rows in tables]
    return "\n\n".join([f"== {result.title}", *texts, *map(_folded, result.notes)])


def _figure_row(figure: Figure) -> list[str]:
    suffix, one = _SUFFIX[figure.unit], figure.estimate
    asked = ""
    if figure.at_least is not None:
        asked = f"at least {figure.at_least:g}{suffix}"
    elif figure.at_most is not None:
        asked = f"at most {figure.at_most:g}{suffix}"
    verdict = _VERDICTS[figure.met]
    if verdict and not figure.settled:
        verdict += ", wide"
    interval = f"{number(one.low)} to {number(one.high)}"
    return [figure.title, f"{number(one.median)}{suffix}", interval, str(one.count), asked, verdict]


def _interval(one: Estimate) -> str:
    return f"{number(one.median)} ({number(one.low)} to {number(one.high)})"


def _markdown_table(rows: Rows) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "| --- |" + " ---: |" * (len(rows[0]) - 1))
    return "\n".join(lines)


def figure_headings() -> list[str]:
    """The lines above the rows of a document's table of figures."""
    return _markdown_table([list(_HEADINGS)]).splitlines()


def _aligned(rows: Rows) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def _folded(text: str) -> str:
    import textwrap

    return textwrap.fill(text, 118, break_long_words=False)
