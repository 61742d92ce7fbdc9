"""``plan --sweep``: speeds along a range of one thing, as a table with bars, JSON or a picture."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bandweave.cli import output
from bandweave.cli.plan.answer import objective_range, objective_words, request_range
from bandweave.planning.costs.cost import decode_range
from bandweave.planning.costs.software import software_title
from bandweave.planning.costs.weight_bytes import find_format
from bandweave.planning.machines.links import find_link, link_names
from bandweave.planning.machines.ports import links_between
from bandweave.planning.search.columns import (
    Machines,
    both_columns,
)
from bandweave.planning.search.conversation import most_streams
from bandweave.planning.search.layout import Question
from bandweave.planning.search.search import Answer

_FORMATS = ("bf16", "q8", "gguf-q6_k", "gguf-q5_k_m", "q4", "gguf-q3_k_m", "gguf-q2_k")
_BAR = 22
_LEAST_BAR = 8
_MOST_NAMED = 5
_WIDTH = 80


@dataclass(frozen=True, kw_only=True)
class Point:
    """One value of what is swept; ``limit`` is None where nothing fits."""

    label: str
    value: float
    limit: Answer | None
    today: Answer | None


@dataclass(frozen=True, kw_only=True)
class Alone:
    """The best machine alone, which every link must beat: its name, and what the objective asks."""

    name: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Series:
    """One setup. ``alone``: in a sweep over links, where one machine holds the model."""

    machines: Machines
    title: str
    points: tuple[Point, ...]
    alone: Alone | None = None


def show_sweep(
    what: str,
    question: Question,
    setups: Sequence[Machines],
    *,
    chart: Path | None,
    as_json: bool,
) -> None:
    """A series for each setup."""
    if what == "link" and all(len(setup.hardware) < 2 for setup in setups):
        raise ValueError("one machine needs no link; give several to sweep over links")
    with output.status(f"Looking at every {what}"):
        series = [sweep_series(what, question, setup) for setup in setups]
    if all(point.limit is None for each in series for point in each.points):
        raise ValueError(f"{question.model.name} fits nowhere in this sweep over {what}")
    if chart is not None:
        from bandweave.cli.plan.pictures.sweeps import draw_sweep

        draw_sweep(what, question, series, chart)
    if as_json:
        output.print_json({
            "sweep": what, "model": question.model.name, "format": question.weights.name,
            "series": [_series_json(each) for each in series],
        })  # fmt: skip
        return
    for each in series:
        _show(what, question, each)


def sweep_series(what: str, question: Question, machines: Machines) -> Series:
    """The points of one setup, with what they are to be compared with."""
    points = tuple(sweep(what, question, machines))
    return Series(
        machines=machines,
        title=_title(what, machines),
        points=points,
        alone=_alone(points) if what == "link" else None,
    )


def sweep(what: str, question: Question, machines: Machines) -> list[Point]:
    """The points of one setup."""
    if what == "link":
        if len(machines.hardware) < 2:
            return [_point("(one machine)", 0.0, question, machines)]
        named = [link for link in machines.links if link.name not in link_names()]
        links = [*named, *map(find_link, links_between(machines.hardware))]
        pairs = () if machines.all_paired else machines.pairs
        points = [
            _point(link.name, link.latency_s.likely * 1e6, question,
                   replace(machines, links=(link,), pairs=pairs))
            for link in sorted(links, key=lambda link: -link.latency_s.likely)
        ]  # fmt: skip
        return sorted(points, key=lambda p: -math.inf if p.limit is None else -p.limit.best.seconds)
    if what == "nodes":
        most = max(8, len(machines.hardware))
        if len({machine.name for machine in machines.hardware}) > 1:
            counts = range(1, len(machines.hardware) + 1)
            return [
                _point(str(n), n, question,
                       replace(machines, hardware=machines.hardware[:n], pairs=(),
                               profiled=machines.profiled[:n]), every=True)
                for n in counts
            ]  # fmt: skip
        return [
            _point(str(n), n, question, machines.times(n), every=True) for n in range(1, most + 1)
        ]
    if what == "context":
        sizes = [2**power for power in range(9, 21) if 2**power <= question.model.context_length]
        return [_point(str(n), n, replace(question, context=n), machines) for n in sizes]
    if what == "streams":
        return [
            _point(str(2**p), 2**p, replace(question, streams=2**p), machines) for p in range(0, 9)
        ]
    assert what == "format", what
    formats = [find_format(name) for name in _FORMATS]
    return [_point(f.name, f.default * 8, replace(question, weights=f), machines)
            for f in formats]  # fmt: skip


def _point(
    label: str, value: float, question: Question, machines: Machines, *, every: bool = False
) -> Point:
    """``every``: the plans that use all machines count, whether or not fewer would be quicker."""
    limit, today = both_columns(question, machines)
    if every and limit is not None and limit.with_all is not None:
        limit = replace(limit, plans=(limit.with_all, *limit.plans))
    return Point(label=label, value=value, limit=limit, today=today)


def sweep_words(what: str, question: Question) -> str:
    """A heading for the figures of a sweep."""
    words = objective_words(question)
    several = what == "streams" and question.objective == "decode"
    return f"{words} of all streams" if several and question.streams == 1 else words


def _title(what: str, machines: Machines) -> str:
    if what == "link":
        return machines.title
    alike = len({machine.name for machine in machines.hardware}) == 1
    if what == "nodes" and alike:
        link = f" over {machines.links[0].name}"
        return f"{machines.hardware[0].name}{link}"
    return machines.described


def _alone(points: Sequence[Point]) -> Alone | None:
    """The quickest of the single machines: the link changes nothing about it."""
    singles = [
        (point.limit.single, point.limit.setup)
        for point in points
        if point.limit is not None and point.limit.single is not None
    ]
    if not singles or len(singles[0][1].nodes) < 2:
        return None
    plan, setup = singles[0]
    return Alone(name=setup.nodes[plan.machines[0]].name, value=objective_range(plan).likely)


def _show(what: str, question: Question, series: Series) -> None:
    output.print_text()
    streams = "" if what == "streams" else f", {output.count(question.streams, 'stream')}"
    heading = f"{question.model.name}{streams}, {series.title}: {sweep_words(what, question)}"
    output.print_text(textwrap.fill(heading, _WIDTH, break_on_hyphens=False))
    slower_is_longer = question.objective == "request"
    shown = output.seconds if slower_is_longer else output.rate
    spans = [None if p.limit is None else objective_range(p.limit.best) for p in series.points]
    most = max([*(span.likely for span in spans if span is not None), 1e-9])
    each = what == "streams" and not slower_is_longer
    rows = []
    for point, span in zip(series.points, spans, strict=True):
        if point.limit is None or span is None:
            rows.append([point.label, "-", "-", *(["-"] if each else []),
                         "does not fit".ljust(_BAR), "-"])  # fmt: skip
            continue
        best = point.limit.best
        bar = "#" * max(1, round(span.likely / most * _BAR))
        split = best.kind if best.kind == "one" else f"{best.kind} {len(best.machines)}"
        today = "-" if point.today is None else shown(objective_range(point.today.best).likely)
        figures = f"{shown(span.likely)} ({shown(span.low)}-{shown(span.high)})"
        one = [output.rate(span.likely / point.value)] if each else []
        rows.append([point.label, split, figures, *one, bar.ljust(_BAR), today])
    unit = "time" if slower_is_longer else "tokens/s"
    heads = [what, "best split", unit, *(["each"] if each else []), "", "today"]
    output.print_table(heads, _narrowed(rows, heads))
    names = {p.limit.setup.engine.name: None for p in series.points if p.limit is not None}
    if names:
        with_what = f"With {', '.join(map(software_title, names))}; today: bandweave."
        output.print_text(textwrap.fill(with_what, _WIDTH, break_on_hyphens=False))
    for sentence in _sentences(what, question, series):
        output.print_text(textwrap.fill(sentence, _WIDTH, break_on_hyphens=False))


def _narrowed(rows: list[list[str]], heads: Sequence[str]) -> list[list[str]]:
    """With shorter bars where the table would be wider than the terminal."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    over = sum(widths) + len(widths) - 1 - _WIDTH
    if over <= 0:
        return rows
    bar = max(_LEAST_BAR, _BAR - over)
    return [
        [*row[:-2], ("#" * -(-row[-2].count("#") * bar // _BAR) or row[-2].strip()).ljust(bar),
         row[-1]]
        for row in rows
    ]  # fmt: skip


def _sentences(what: str, question: Question, series: Series) -> list[str]:
    """What the table says."""
    if what == "link" and series.alone is not None:
        shown = output.seconds if question.objective == "request" else output.rate
        slower = [p.label for p in series.points if p.limit and len(p.limit.best.machines) == 1]
        words = f"One {series.alone.name} alone: {shown(series.alone.value)}."
        if slower:
            more = f" and {len(slower) - _MOST_NAMED} more" if len(slower) > _MOST_NAMED else ""
            words += f" That is the better choice over {', '.join(slower[-_MOST_NAMED:])}{more}."
        return [words]
    if what == "streams":
        fitting = [point for point in series.points if point.limit is not None]
        if fitting and fitting[-1].limit is not None:
            most = most_streams(fitting[-1].limit.best)
            return [f"Memory holds {most} streams of {question.context} tokens at once."]
    return []


def _series_json(series: Series) -> dict[str, Any]:
    alone = None
    if series.alone is not None:
        alone = {"machine": series.alone.name, "value": series.alone.value}
    return {
        "machines": series.title,
        "one_machine": alone,
        "points": [_point_json(point) for point in series.points],
    }


def _point_json(point: Point) -> dict[str, Any]:
    result: dict[str, Any] = {"label": point.label, "value": point.value}
    if point.limit is None:
        return result | {"fits": False}
    best = point.limit.best
    span = decode_range(best.deployment, best.question.decoding)
    kinds: dict[str, float] = {}
    for plan in point.limit.plans:
        kinds.setdefault(plan.kind, plan.decode.tokens_per_s)
    today = point.today
    return result | {
        "fits": True,
        "split": best.kind,
        "engine": point.limit.setup.engine.name,
        "machines": len(best.machines),
        "decode_tokens_per_s": {"likely": span.likely, "low": span.low, "high": span.high},
        "prefill_tokens_per_s": best.prefill.tokens_per_s,
        "request_s": request_range(best).likely,
        "by_split": kinds,
        "bandweave_decode_tokens_per_s": None if today is None else today.best.decode.tokens_per_s,
    }
