"""The picture of an answer: how fast each setup or split is, and where its time goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bandweave.cli import output
from bandweave.cli.plan.answer import (
    Columns,
    Setups,
    objective_range,
    objective_unit,
    objective_words,
)
from bandweave.cli.plan.pictures.bars import Bar, bars_height, draw_bars, draw_parts
from bandweave.cli.plan.pictures.figure import footer_text, inline_svg, panels, save
from bandweave.planning.costs.software import software_title
from bandweave.planning.search.explain import item_times, layout_phrase, plan_items
from bandweave.planning.search.published import published_for
from bandweave.planning.search.search import Plan

_MOST_PLANS = 5  # of one setup
_MOST_OTHERS = 3  # programs beside the quickest
_SEEN = 0.002  # of a bar


def draw_answer(setups: Setups, path: Path) -> None:
    """Into a file."""
    with _figure(setups) as (figure, published):
        save(figure, path, footer_text(published=published))


def answer_svg(setups: Setups) -> str:
    """For a page."""
    with _figure(setups) as (figure, published):
        return inline_svg(figure, footer_text(published=published), "answer")


class _figure:
    """The figure, and whether it shows published points; open while its style holds."""

    def __init__(self, setups: Setups) -> None:
        self.setups = setups
        bars = speed_bars(setups)
        parts = _parts(setups)
        question = setups.question
        self.bars, self.parts = bars, parts
        heights = [bars_height(len(bars)), bars_height(len(parts)) + 0.35]
        one = f", {setups.fitting[0].machines.title}" if len(setups.entries) == 1 else ""
        streams = "" if question.streams == 1 else f", {question.streams} streams"
        title = f"{question.model.name} in {question.weights.name}{one}{streams}"
        self.panels = panels(heights, title=title)

    def __enter__(self) -> tuple[Any, bool]:
        figure, axes = self.panels.__enter__()
        question = self.setups.question
        draw_bars(
            axes[0], self.bars, title=objective_words(question), unit=objective_unit(question),
            mark=_one_machine(self.setups),
            shown=output.seconds if question.objective == "request" else output.rate,
        )  # fmt: skip
        what = "a token's" if question.objective == "decode" else f"a {_noun(question.objective)}'s"
        draw_parts(axes[1], self.parts, title=f"Where {what} time goes{_with(self.setups)}")
        return figure, any(bar.published for bar in self.bars)

    def __exit__(self, *failure: Any) -> None:
        self.panels.__exit__(*failure)


def _with(setups: Setups) -> str:
    """The software, where it is one."""
    engines = {columns.engine for columns in setups.fitting}
    return f", with {software_title(engines.pop())}" if len(engines) == 1 else ""


def _noun(objective: str) -> str:
    return {"prefill": "prompt"}.get(objective, objective)


def speed_bars(setups: Setups) -> list[Bar]:
    if len(setups.entries) == 1:
        return _plan_bars(setups.fitting[0])
    bars = []
    for colour, entry in enumerate(setups.entries):
        label = f"{entry.letter}: {entry.machines.described}"
        if entry.columns is None:
            bars.append(Bar(label=label, span=None))
            continue
        best = entry.columns.limit.best
        bars.append(
            Bar(
                label=label,
                span=objective_range(best),
                colour=colour,
                note=f"{_brief(best)}, {software_title(entry.columns.engine)}",
                published=_published(entry.columns),
            )  # fmt: skip
        )
        bars += _today(entry.columns, f"{entry.letter}, bandweave today")
    return bars


def _plan_bars(columns: Columns) -> list[Bar]:
    """The best plan of every kind, and the best machine alone."""
    limit = columns.limit
    plans = list(limit.plans[:_MOST_PLANS])
    if limit.single is not None and limit.single not in plans:
        plans.append(limit.single)
    bars = []
    for plan in plans:
        # What lies on a machine's cards takes more lines than a bar has room for.
        words = _brief(plan) if plan.kind == "one" else layout_phrase(plan)
        bars.append(
            Bar(
                label=f"{software_title(columns.engine)}:\n{words}",
                span=objective_range(plan),
                colour=0 if plan is limit.best else 6,
                published=_published(columns) if plan is limit.best else (),
            )  # fmt: skip
        )
    for answer in columns.others[:_MOST_OTHERS]:
        label = f"{software_title(answer.setup.engine.name)}:\n{_brief(answer.best)}"
        bars.append(Bar(label=label, span=objective_range(answer.best), colour=3))
    return bars + _today(columns, "bandweave today")


def _today(columns: Columns, label: str) -> list[Bar]:
    if columns.today is None or columns.hypothetical:
        return []
    best = columns.today.best
    return [Bar(label=f"{label}:\n{_brief(best)}", span=objective_range(best), today=True)]


def _brief(plan: Plan) -> str:
    count = len(plan.machines)
    return "one machine" if count == 1 else f"{plan.kind}, {count} machines"


def _published(columns: Columns) -> tuple[float, ...]:
    question = columns.question
    if question.objective != "decode":
        return ()
    found = published_for(question.model, question.weights, columns.machines.hardware)
    return tuple(
        each.decode_tokens_per_s
        for each in found
        if each.decode_tokens_per_s and each.streams == question.streams
    )


def _one_machine(setups: Setups) -> tuple[float, str] | None:
    """The best machine alone of one setup that has several."""
    if len(setups.entries) > 1:
        return None
    limit = setups.fitting[0].limit
    if limit.single is None or len(limit.setup.nodes) < 2:
        return None
    value = objective_range(limit.single).likely
    name = limit.setup.nodes[limit.single.machines[0]].name
    shown = output.seconds if limit.question.objective == "request" else output.rate
    return value, f"one {name} alone: {shown(value)}"


def _shown_parts(plan: Plan) -> list[tuple[str, float]]:
    """Milliseconds by item, but for those that nobody would see."""
    items = plan_items(plan)
    return [
        (name, seconds * 1e3)
        for name, seconds in item_times(items)
        if seconds > items.total_s * _SEEN
    ]


def _parts(setups: Setups) -> Sequence[tuple[str, Sequence[tuple[str, float]]]]:
    if len(setups.entries) == 1:
        plans = setups.fitting[0].limit.plans[:_MOST_PLANS]
        named = [(layout_phrase(plan), plan) for plan in plans]
    else:
        named = [
            (f"{entry.letter}: {entry.machines.title}", entry.columns.limit.best)
            for entry in setups.entries
            if entry.columns is not None
        ]
    return [(label, _shown_parts(plan)) for label, plan in named]
