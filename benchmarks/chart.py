"""Charts: PNG files of results, through matplotlib. Knows results; knows no measurements."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no display is needed

import matplotlib.pyplot as plt  # noqa: E402

from benchmarks.result import Figure, Result, Series  # noqa: E402

_COLOURS = ("#1f6f8b", "#e07a3f", "#7a9e3f", "#8a6fb0", "#999999")
_WIDTH = 8.0  # inches
_DPI = 120


def draw(result: Result, folder: Path) -> list[Path]:
    """Writes the result's charts as ``<experiment>*.png`` into a folder; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    ratios = [figure for figure in result.figures if figure.unit == "x"]
    if ratios and not result.series:
        path = folder / f"{result.experiment}.png"
        _draw_ratios(ratios, result.title, path)
        drawn.append(path)
    for number, series in enumerate(result.series):
        path = folder / f"{result.experiment}{number or ''}.png"
        if all(isinstance(place, int | float) for place in series.places):
            _draw_lines(series, path)
        else:
            _draw_bars(series, path)
        drawn.append(path)
    return drawn


def _draw_ratios(figures: list[Figure], title: str, path: Path) -> None:
    """Horizontal bars with intervals; a tick marks what is asked."""
    height = 0.55 * len(figures) + 1.2
    chart, axes = plt.subplots(figsize=(_WIDTH, height), layout="constrained")
    for place, figure in enumerate(reversed(figures)):
        one = figure.estimate
        errors = [[max(0.0, one.median - one.low)], [max(0.0, one.high - one.median)]]
        axes.barh(place, one.median, xerr=errors, color=_COLOURS[0], height=0.6, capsize=3)
        axes.text(0.02, place, f" {one.median:.2f}", color="white", va="center", weight="bold")
        if figure.at_least is not None:
            axes.plot([figure.at_least] * 2, [place - 0.4, place + 0.4], color=_COLOURS[1], lw=3)
    axes.axvline(1.0, color="black", lw=0.8, ls=":")
    most = max(max(f.estimate.high, f.at_least or 0.0) for f in figures)
    axes.set_xlim(0, 1.05 * most)
    axes.set_yticks(range(len(figures)), [figure.title for figure in reversed(figures)])
    # Under the whole chart: the names leave little room beside the bars.
    chart.supxlabel("ratio; median and 95% interval; the tick is what is asked", fontsize="medium")
    axes.set_title(title)
    _save(chart, path)


def _draw_lines(series: Series, path: Path) -> None:
    chart, axes = plt.subplots(figsize=(_WIDTH, 4.5), layout="constrained")
    for name, colour in zip(series.names, _COLOURS, strict=False):
        points = [point for point in series.points if point.name == name]
        xs = [float(point.x) for point in points]
        axes.plot(xs, [p.estimate.median for p in points], marker="o", color=colour, label=name)
        axes.fill_between(
            xs, [p.estimate.low for p in points], [p.estimate.high for p in points],
            color=colour, alpha=0.2, lw=0,
        )  # fmt: skip
    places = [float(place) for place in series.places]
    if max(places) - min(places) >= 2 * len(places):  # they grow by factors, else by steps
        axes.set_xscale("log", base=2)
        axes.set_xticks(places, list(map(str, series.places)))
    axes.set_ylim(bottom=0)
    axes.set_xlabel(series.axis)
    _finish(axes, series)
    _save(chart, path)


def _draw_bars(series: Series, path: Path) -> None:
    chart, axes = plt.subplots(figsize=(_WIDTH, 4.5), layout="constrained")
    names, places = series.names, series.places
    width = 0.8 / len(names)
    for index, name in enumerate(names):
        for place, x in enumerate(places):
            one = series.at(name, x)
            if one is None:
                continue
            errors = [[max(0.0, one.median - one.low)], [max(0.0, one.high - one.median)]]
            axes.bar(
                place + (index - (len(names) - 1) / 2) * width, one.median, width, yerr=errors,
                color=_COLOURS[index % len(_COLOURS)], capsize=3, label=None if place else name,
            )  # fmt: skip
    if len(names) == 1 and (first := series.at(names[0], places[0])):
        axes.axhline(first.median, color="black", lw=0.8, ls=":")
    axes.set_xticks(range(len(places)), list(map(str, places)), rotation=20, ha="right")
    _finish(axes, series)
    _save(chart, path)


def _finish(axes, series: Series) -> None:
    axes.set_ylabel(series.unit)
    axes.set_title(series.title)
    axes.grid(axis="y", alpha=0.3)
    if len(series.names) > 1:
        axes.legend()


def _save(chart, path: Path) -> None:
    chart.savefig(path, dpi=_DPI, metadata={"Software": None})
    plt.close(chart)
