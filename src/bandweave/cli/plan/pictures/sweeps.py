"""Pictures of sweeps: bars where what is swept has names, lines where it has numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bandweave.cli import output
from bandweave.cli.plan.answer import objective_range, objective_unit, objective_words
from bandweave.cli.plan.pictures.bars import Bar, Line, bars_height, draw_bars, draw_lines
from bandweave.cli.plan.pictures.figure import (
    footer_text,
    inline_svg,
    panels,
    save,
    tokens_label,
)
from bandweave.cli.plan.sweep import Point, Series, sweep_words
from bandweave.planning.costs.cost import Prediction
from bandweave.planning.costs.software import ANY, software_title
from bandweave.planning.search.columns import Machines
from bandweave.planning.search.layout import Question
from bandweave.planning.search.published import published_for

_NAMED = ("link", "format")
_ACROSS = {
    "nodes": "machines",
    "context": "tokens in the cache of each stream",
    "streams": "streams at once",
}


def draw_sweep(what: str, question: Question, series: Sequence[Series], path: Path) -> None:
    """Into a file."""
    with _panels(what, question, series) as (figure, axes):
        published = _draw(axes, what, question, series)
        save(figure, path, footer_text(published=published))


def sweep_svg(what: str, question: Question, series: Sequence[Series]) -> str:
    """For a page."""
    with _panels(what, question, series) as (figure, axes):
        published = _draw(axes, what, question, series)
        return inline_svg(figure, footer_text(published=published), f"sweep-{what}")


def _panels(what: str, question: Question, series: Sequence[Series]) -> Any:
    model = f"{question.model.name}" + (
        "" if what == "format" else f" in {question.weights.name}"
    )  # fmt: skip
    title = f"{model}: by {what}"
    if what in _NAMED:
        heights = [bars_height(len(sweep_bars(each))) for each in series]
    else:
        heights = [3.4] if what != "streams" else [3.2, 3.2]
    return panels(heights, title=title)


def _draw(axes: Sequence[Any], what: str, question: Question, series: Sequence[Series]) -> bool:
    seconds = question.objective == "request"
    shown = output.seconds if seconds else output.rate
    unit = objective_unit(question)
    if what in _NAMED:
        for panel, each in zip(axes, series, strict=True):
            mark = None
            if each.alone is not None:
                mark = each.alone.value, f"one {each.alone.name} alone: {shown(each.alone.value)}"
            title = f"{each.title}: {objective_words(question).lower()}"
            draw_bars(panel, sweep_bars(each), title=title, unit=unit, mark=mark, shown=shown)
        return False
    lines, published = _lines(what, question, series)
    values = sorted({x for line in lines for x in line.xs})
    label = tokens_label if what == "context" else (lambda x: f"{x:g}")
    ticks = {x: label(x) for x in values}
    draw_lines(
        axes[0], lines, title=_lines_title(what, question, series), unit=unit,
        across=_ACROSS[what], ticks=ticks, logarithmic=what != "nodes", shown=shown,
    )  # fmt: skip
    if what == "streams":
        draw_lines(
            axes[1], [_each(line) for line in lines], title="The same for each stream",
            unit=unit, across=_ACROSS[what], ticks=ticks, logarithmic=True, shown=shown,
        )  # fmt: skip
    return published


def _lines_title(what: str, question: Question, series: Sequence[Series]) -> str:
    words = sweep_words(what, question)
    return words if len(series) > 1 else f"{series[0].title}: {words[:1].lower()}{words[1:]}"


def sweep_bars(series: Series) -> list[Bar]:
    bars = []
    for point in series.points:
        if point.limit is None:
            bars.append(Bar(label=point.label, span=None))
            continue
        best = point.limit.best
        count = len(best.machines)
        note = "one machine" if count == 1 else f"{best.kind} {count}"
        bars.append(Bar(label=point.label, span=objective_range(best), note=note,
                        colour=6 if count == 1 and series.alone else 0))  # fmt: skip
    return bars


def _lines(what: str, question: Question, series: Sequence[Series]) -> tuple[list[Line], bool]:
    lines, published = [], False
    several = len(series) > 1
    for colour, each in enumerate(series):
        found = [point for point in each.points if point.limit is not None]
        if not found:
            continue
        points = _published(what, question, each, found)
        published = published or bool(points)
        title = each.title if several else _software(each.machines)
        lines.append(
            Line(
                title=title,
                xs=tuple(point.value for point in found),
                colour=colour,
                spans=tuple(_span(point) for point in found),
                published=points,
            )  # fmt: skip
        )
        own = [point for point in found if point.today is not None]
        if own and not several:
            spans = tuple(objective_range(p.today.best) for p in own if p.today is not None)
            lines.append(
                Line(
                    title="bandweave today",
                    xs=tuple(point.value for point in own),
                    spans=spans,
                    today=True,
                )
            )
    return lines, published


def _software(machines: Machines) -> str:
    """What a line of its own is called: the software that is asked for, or the best."""
    return "best software today" if machines.engine == ANY else software_title(machines.engine)


def _span(point: Point) -> Prediction:
    assert point.limit is not None
    return objective_range(point.limit.best)


def _each(line: Line) -> Line:
    spans = tuple(
        Prediction(likely=s.likely / x, low=s.low / x, high=s.high / x)
        for x, s in zip(line.xs, line.spans, strict=True)
    )
    return Line(title=line.title, xs=line.xs, spans=spans, colour=line.colour, today=line.today)


def _published(
    what: str, question: Question, series: Series, points: Sequence[Point]
) -> tuple[tuple[float, float], ...]:
    """(x, tokens/s) that others measured, where x is within what is drawn."""
    if question.objective != "decode" or not points:
        return ()
    result = []
    machines = series.machines.hardware
    counts = [round(p.value) for p in points] if what == "nodes" else [len(machines)]
    for count in counts:
        for row in published_for(question.model, question.weights, machines[:1] * count):
            x = {"nodes": count, "context": row.context, "streams": row.streams}[what]
            alike = what == "streams" or row.streams == question.streams
            if alike and row.decode_tokens_per_s and points[0].value <= x <= points[-1].value:
                result.append((float(x), row.decode_tokens_per_s))
    return tuple(result)
