"""Bars with values, ranges and published points, and lines with bands. Knows no plans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bandweave.cli import output
from bandweave.cli.plan.pictures.figure import COLOURS, GREY, PUBLISHED, TODAY, wrapped
from bandweave.planning.costs.cost import Prediction

_BAR_INCHES = 0.42
_WIDE = 25  # lines whose values differ by more are drawn on a logarithmic scale


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar. ``span`` None: nothing fits, which ``note`` says. ``today``: bandweave's own;
    ``published``: values that others measured for just this."""

    label: str
    span: Prediction | None
    colour: int = 0
    today: bool = False
    note: str = ""
    published: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Line:
    """Points of a line, ``xs`` ascending; ``published``: (x, value) that others measured."""

    title: str
    xs: tuple[float, ...]
    spans: tuple[Prediction, ...]
    colour: int = 0
    today: bool = False
    dashed: bool = False
    published: tuple[tuple[float, float], ...] = ()


def bars_height(count: int) -> float:
    """Inches that so many bars need."""
    return 0.6 + _BAR_INCHES * max(count, 1)


def draw_bars(
    axes: Any,
    bars: Sequence[Bar],
    *,
    title: str,
    unit: str,
    mark: tuple[float, str] | None = None,
    shown: Callable[[float], str] = output.rate,
) -> None:
    """Bars below each other with their values; ``mark`` is a line across all of them, with its
    words."""
    places = range(len(bars))
    spans = [bar.span for bar in bars if bar.span is not None]
    most = max([*(span.high for span in spans), *(p for bar in bars for p in bar.published),
                mark[0] if mark else 0.0, 1e-12])  # fmt: skip
    for place, bar in zip(places, bars, strict=True):
        if bar.span is None:
            axes.text(most * 0.01, place, bar.note or "does not fit", va="center", color=GREY)
            continue
        colour = TODAY if bar.today else COLOURS[bar.colour % len(COLOURS)]
        axes.barh([place], [bar.span.likely], height=0.62, color=colour)
        axes.plot([bar.span.low, bar.span.high], [place, place], color="#222222", linewidth=1.0)
        words = shown(bar.span.likely)
        if bar.span.low < bar.span.high:
            words += f"  ({shown(bar.span.low)} to {shown(bar.span.high)})"
        end = max(bar.span.high, *bar.published, 0.0)
        note = f"  {bar.note}" if bar.note else ""
        axes.text(end + most * 0.012, place, words + note, va="center", fontsize=8)
        if bar.published:
            axes.plot(bar.published, [place] * len(bar.published), "D", color=PUBLISHED,
                      markersize=4, linestyle="none", zorder=5)  # fmt: skip
    if mark is not None:
        axes.axvline(mark[0], color=COLOURS[4], linestyle="--", linewidth=1.2, zorder=0.5)
        side = "left" if mark[0] < most * 0.6 else "right"
        axes.annotate(mark[1], (mark[0], 1.0), xycoords=("data", "axes fraction"), ha=side,
                      va="bottom", fontsize=8, color=COLOURS[4])  # fmt: skip
    axes.set_yticks(list(places), [wrapped(bar.label, 30) for bar in bars])
    axes.set_ylim(len(bars) - 0.4, -0.6)  # the first on top
    axes.set_xlim(0, most * (1.36 + 0.011 * max(len(bar.note) for bar in bars)))
    axes.set_xlabel(unit)
    axes.set_title(title, pad=16 if mark is not None else 6)


def draw_lines(
    axes: Any,
    lines: Sequence[Line],
    *,
    title: str,
    unit: str,
    across: str,
    ticks: dict[float, str],
    logarithmic: bool,
    shown: Callable[[float], str] = output.rate,
) -> None:
    """Lines with bands and a value at each point; ``ticks``: what is written at which x."""
    for line in lines:
        colour = TODAY if line.today else COLOURS[line.colour % len(COLOURS)]
        values = [span.likely for span in line.spans]
        style = "s--" if line.today else "o--" if line.dashed else "o-"
        axes.plot(line.xs, values, style, color=colour, markersize=4, label=line.title)
        axes.fill_between(line.xs, [span.low for span in line.spans],
                          [span.high for span in line.spans], color=colour, alpha=0.15,
                          linewidth=0)  # fmt: skip
        for x, value in zip(line.xs, values, strict=True):
            axes.annotate(shown(value), (x, value), textcoords="offset points",
                          xytext=(0, -12 if line.published else 6), ha="center", fontsize=7,
                          color=GREY if line.today else colour)  # fmt: skip
        if line.published:
            axes.plot(*zip(*line.published, strict=True), "D", color=PUBLISHED, markersize=5,
                      linestyle="none", zorder=5)  # fmt: skip
    if logarithmic:
        axes.set_xscale("log", base=2)
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    ends = [span.likely for line in lines for span in line.spans]
    top = max([span.high for line in lines for span in line.spans]
              + [value for line in lines for _, value in line.published])  # fmt: skip
    if len(lines) > 1 and min(ends) > 0 and max(ends) > _WIDE * min(ends):
        axes.set_yscale("log")
        axes.set_ylim(min(ends) / 1.6, top * 1.5)
        axes.yaxis.set_major_formatter(lambda value, _: shown(value))
        axes.yaxis.set_minor_formatter(lambda value, _: "")
    else:
        axes.set_ylim(0, top * 1.12)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(across)
    axes.set_ylabel(unit)
    axes.set_title(title)
    if len(lines) > 1 or lines[0].title:
        axes.legend(fontsize=8, loc="best")


def draw_parts(
    axes: Any, rows: Sequence[tuple[str, Sequence[tuple[str, float]]]], *, title: str
) -> None:
    """A bar a row, cut into its parts (name, milliseconds), with a legend of the names."""
    names = list(dict.fromkeys(name for _, parts in rows for name, _ in parts))
    colours = dict(zip(names, COLOURS * 2, strict=False))
    most = max(sum(value for _, value in parts) for _, parts in rows)
    labelled = set()
    for place, (_, parts) in enumerate(rows):
        start = 0.0
        for name, value in parts:
            axes.barh([place], [value], left=[start], height=0.62, color=colours[name],
                      label=None if name in labelled else name)  # fmt: skip
            labelled.add(name)
            if value > most * 0.045:
                axes.text(start + value / 2, place, output.rate(value), ha="center", va="center",
                          fontsize=7, color="white")  # fmt: skip
            start += value
        axes.text(start + most * 0.012, place, f"{output.rate(start)} ms", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [wrapped(label, 30) for label, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, most * 1.15)
    axes.set_xlabel("ms")
    axes.set_title(title)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.16 - 0.35 / len(rows)),
                ncols=min(len(names), 6))  # fmt: skip
