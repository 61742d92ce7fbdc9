"""``plan --sweep``: speeds along a range of one thing, as a table with bars, JSON or a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bandweave.cli import output
from bandweave.planning.costs.cost import decode_range
from bandweave.planning.costs.software import software_title
from bandweave.planning.costs.weight_bytes import find_format
from bandweave.planning.machines.links import find_link, link_names
from bandweave.planning.search.columns import (
    Machines,
    both_columns,
)
from bandweave.planning.search.layout import Question
from bandweave.planning.search.search import Answer

_FORMATS = ("bf16", "q8", "gguf-q6_k", "gguf-q5_k_m", "q4", "gguf-q3_k_m", "gguf-q2_k")
_BAR = 22


@dataclass(frozen=True, kw_only=True)
class Point:
    """One value of what is swept; ``limit`` is None where nothing fits."""

    label: str
    value: float
    limit: Answer | None
    today: Answer | None


@dataclass(frozen=True, kw_only=True)
class Series:
    title: str
    points: tuple[Point, ...]


def show_sweep(
    what: str,
    question: Question,
    setups: Sequence[Machines],
    *,
    chart: Path | None,
    as_json: bool,
) -> None:
    """A series for each setup."""
    series = [
        Series(title=setup.title, points=tuple(sweep(what, question, setup))) for setup in setups
    ]
    if all(point.limit is None for each in series for point in each.points):
        raise ValueError(f"{question.model.name} fits nowhere in this sweep over {what}")
    if chart is not None:
        from bandweave.cli.plan.chart import draw_sweep

        draw_sweep(what, question, series, chart)
    if as_json:
        output.print_json({
            "sweep": what, "model": question.model.name, "format": question.weights.name,
            "series": [_series_json(each) for each in series],
        })  # fmt: skip
        return
    for each in series:
        _show(what, question, each)


def sweep(what: str, question: Question, machines: Machines) -> list[Point]:
    """The points of one setup."""
    if what == "link":
        if len(machines.hardware) < 2:
            raise ValueError("one machine needs no link; give several to sweep over links")
        names = sorted(link_names(), key=lambda name: -find_link(name).latency_s.likely)
        return [
            _point(name, find_link(name).latency_s.likely * 1e6, question,
                   replace(machines, links=(find_link(name),)))
            for name in names
        ]  # fmt: skip
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


def _show(what: str, question: Question, series: Series) -> None:
    output.print_text()
    output.print_text(
        f"{question.model.name}, {question.streams} stream(s), {series.title}: decode, tokens/s"
    )
    speeds = [
        0.0 if point.limit is None else point.limit.best.decode.tokens_per_s
        for point in series.points
    ]
    most = max([*speeds, 1e-9])
    rows = []
    for point, speed in zip(series.points, speeds, strict=True):
        if point.limit is None:
            rows.append([point.label, "-", "-", "does not fit".ljust(_BAR), "-"])
            continue
        best = point.limit.best
        span = decode_range(best.deployment, best.question.decoding)
        bar = "#" * max(1, round(speed / most * _BAR))
        split = best.kind if best.kind == "one" else f"{best.kind} {len(best.machines)}"
        today = "-" if point.today is None else output.rate(point.today.best.decode.tokens_per_s)
        low, high = output.rate(span.low), output.rate(span.high)
        rows.append([point.label, split, f"{output.rate(speed)} ({low}-{high})", bar.ljust(_BAR),
                     today])  # fmt: skip
    output.print_table([what, "best split", "tokens/s", "", "today"], rows)
    names = {p.limit.setup.engine.name: None for p in series.points if p.limit is not None}
    output.print_text(f"With {', '.join(map(software_title, names))}; today: bandweave.")


def _series_json(series: Series) -> dict[str, Any]:
    return {"machines": series.title, "points": [_point_json(point) for point in series.points]}


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
        "by_split": kinds,
        "bandweave_decode_tokens_per_s": None if today is None else today.best.decode.tokens_per_s,
    }
